//! Forms of addresses and tokens, and text that resembles them.

pub struct Form {
    pub name: &'static str,
    pub text: &'static str,
    /// Part that must not leave; empty if the text must stay as it is.
    pub secret: &'static str,
    /// Reason why the collector's result differs from that of the process.
    pub why: &'static str,
}

const fn secret(name: &'static str, text: &'static str, secret: &'static str) -> Form {
    let why = "";
    Form {
        name,
        text,
        secret,
        why,
    }
}

const fn kept(name: &'static str, text: &'static str) -> Form {
    secret(name, text, "")
}

impl Form {
    const fn because(self, why: &'static str) -> Self {
        Self { why, ..self }
    }
}

const STARS: &str = "the collector has one replacement for addresses and tokens";

pub const FORMS: &[Form] = &[
    secret("address", "carla.secret@mail.example", "secret"),
    secret(
        "within a sentence",
        "no mail to <carla.secret@mail.example>.",
        "secret",
    ),
    secret("short local part", "ca@mail.example", "ca@"),
    secret("percent-encoded", "carla.secret%40mail.example", "secret"),
    secret("encoded twice", "carla.secret%2540mail.example", "secret"),
    secret("encoded dots", "carla%2Esecret%40mail%2Eexample", "secret"),
    secret("encoded dot in the host", "carla.secret@mail%2Eexample", "secret"),
    secret("JSON escape", "carla.secret\\u0040mail.example", "secret"),
    secret("HTML escape", "carla.secret&#64;mail.example", "secret"),
    secret("octal escape", "carla.secret\\100mail.example", "secret"),
    secret("full-width at sign", "carla.secret\u{ff20}mail.example", "secret"),
    secret("two at signs", "carla.secret@@mail.example", "secret"),
    secret(
        "an address before the at sign",
        "foo@carla.secret@mail.example",
        "secret",
    ),
    secret("a domain before the at sign", "foo@c.secret@mail.example", "c.se"),
    secret(
        "encoded at sign before the at sign",
        "foo%40carla.secret%40mail.example",
        "secret",
    ),
    secret(
        "handle of a social network",
        "@carla.secret@mail.example",
        "secret",
    ),
    secret("at sign in brackets", "carla.secret[@]mail.example", "secret"),
    secret("local part in brackets", "(carla.secret)@mail.example", "secret"),
    secret("host in angle brackets", "carla.secret@<mail.example>", "secret"),
    secret(
        "user of a URL",
        "https://carla.secret%40mail.example:x@host.example/",
        "secret",
    ),
    secret(
        "at sign in a password",
        "https://carla:p@ss.secret@host.example/",
        "secret",
    ),
    secret("quoted-printable", "carla.secret=40mail.example", "secret")
        .because("the collector does not read `=40` as an at sign, which is more often part of a query"),
    secret("quoted local part", "\"carla secret\"@mail.example", "secret"),
    secret(
        "symbols in the local part",
        "carla{secret}/x|y@mail.example",
        "secret",
    ),
    secret(
        "invisible character",
        "carla.secret\u{200b}@mail.example",
        "secret",
    ),
    secret("other scripts", "секретный@почта.рф", "секретный"),
    secret(
        "ideographic full stop",
        "carla.secret@mail\u{3002}example",
        "secret",
    ),
    secret("host in brackets", "carla.secret@[192.0.2.1]", "secret"),
    secret(
        "host in encoded brackets",
        "carla.secret%40%5B192%2E0%2E2%2E1%5D",
        "secret",
    ),
    secret("IPv4 address", "carla.secret@192.0.2.1", "secret"),
    secret("IPv6 address", "carla.secret@2001:db8::1", "secret"),
    secret("localhost", "carla.secret@localhost", "secret"),
    secret("host without a dot", "git@host", "git").because(HOST),
    secret(
        "dotted name, host without a dot",
        "carla.secret@mailhost",
        "secret",
    )
    .because(HOST),
    secret("repository", "git@github.example:acme/shop.git", "git@"),
    secret("file name", "name@2x.png", "name"),
    secret(
        "JSON web token",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYXJsYSJ9.c2lnbmF0dXJl",
        "JzdWIi",
    )
    .because(STARS),
    secret("bearer token", "Bearer mF_9.B5f-4.1JqM", "mF_9").because(STARS),
    secret("bearer token of letters", "Bearer abcdefghijkl", "abcdefghijkl").because(
        "the collector cannot tell fewer than 16 letters from prose, such as `Bearer authentication`",
    ),
    secret("basic credentials", "Basic dXNlcjpodW50ZXIy", "dXNl").because(STARS),
    secret(
        "private key",
        "-----BEGIN PRIVATE KEY-----MC4CAQAwBQYDK2Vw",
        "MC4C",
    )
    .because(STARS),
    secret(
        "password of a URL",
        "redis://shop:hunter2@cache.example/0",
        "nter2",
    )
    .because("the collector keeps two characters, as of an address"),
    secret("webhook secret", "whsec_MfKQ9r8GKYqrTwjU", "MfKQ").because(STARS),
    secret("secret key", "sk_live_4eC39HqLyjWDarjtT1", "4eC39").because(STARS),
    secret("GitHub token", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7").because(STARS),
    secret("Docker token", "dckr_pat_16C7e42F292c6912E7710c838347", "16C7").because(STARS),
    secret("Slack token", "xoxb-123456789012-AbCdEfGhIj", "1234").because(STARS),
    secret("AWS access key", "AKIAIOSFODNN7EXAMPLE", "IOSF").because(STARS),
    secret(
        "token in a query",
        "t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI3In0.c2ln&page=2",
        "JzdWIi",
    )
    .because(STARS),
    kept("already masked", "al***@mail.example"),
    kept("slug of an address", "write-to-carla-secret-mail-example"),
    kept(
        "slug of a key",
        "sk-or-xoxb-keys-of-glpat-explained-at-some-length",
    ),
    kept("name of a worker", "celery@worker-1"),
    kept("prose", "a Bearer token is required"),
    kept("percent sign", "100%40"),
];

const HOST: &str =
    "the collector's expressions cannot exempt the names of Celery's workers, such as `celery@host`";
