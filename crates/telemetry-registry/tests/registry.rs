//! The registry holds together, and what is made from it is what the repository has.
#![cfg(test)]

use std::fs;

use telemetry_registry::{Registry, RegistryError, generated};

/// `scripts/telemetry-registry` accepts a change; the difference shows in review.
#[test]
fn what_is_made_from_the_registry_is_fresh() {
    for (path, text) in generated(&Registry::load().unwrap()) {
        let there = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == text,
            "{} is stale: run scripts/telemetry-registry",
            path.display()
        );
    }
}

/// What is wrong with the registry when `groups` is added to it.
fn problems_with(groups: &str) -> String {
    match Registry::load_with(&[("more", groups)]) {
        Err(RegistryError::Contradictory(problems)) => problems.join("\n"),
        Err(other) => other.to_string(),
        Ok(_) => String::new(),
    }
}

fn group(attributes: &str) -> String {
    format!("groups: [{{id: more, type: attribute_group, brief: More., attributes: [{attributes}]}}]")
}

#[test]
fn a_reference_to_what_is_there_is_accepted() {
    for name in ["http.route", "article.slug"] {
        assert_eq!(problems_with(&group(&format!("{{ref: {name}}}"))), "");
    }
}

#[test]
fn a_reference_to_nothing_is_refused() {
    assert_eq!(
        problems_with(&group("{ref: http.rout}")),
        "more: nobody declares http.rout"
    );
}

#[test]
fn a_reference_to_what_is_deprecated_is_refused() {
    assert_eq!(
        problems_with(&group("{ref: http.status_code}")),
        "more: http.status_code is deprecated"
    );
}

#[test]
fn a_name_of_upstream_cannot_be_declared_again() {
    let declared = |name: &str| {
        problems_with(&group(&format!(
            "{{id: {name}, type: string, brief: Mine., stability: stable, examples: [x]}}"
        )))
    };
    assert_eq!(
        declared("user.id"),
        "more: user.id is upstream's and cannot be declared again"
    );
    assert_eq!(
        declared("http.request.header.accept"),
        "more: http.request.header.accept is upstream's and cannot be declared again"
    );
    assert_eq!(declared("user.shoe_size"), "");
    let metric = "groups: [{id: more, type: metric, metric_name: process.cpu.time, brief: Mine., stability: stable, \
                  instrument: counter, unit: s}]";
    assert_eq!(
        problems_with(metric),
        "more is upstream's and cannot be declared again"
    );
}

#[test]
fn a_name_is_declared_once() {
    let again = "{id: article.slug, type: string, brief: Again., stability: stable, examples: [x]}";
    assert_eq!(
        problems_with(&group(again)),
        "more: article.slug is declared twice"
    );
}

#[test]
fn an_attribute_has_a_type_a_meaning_a_stability_and_where_it_is_text_an_example() {
    for (attribute, problem) in [
        ("{id: x.y, brief: X., stability: stable}", "more: x.y has no type"),
        (
            "{id: x.y, type: text, brief: X., stability: stable}",
            "more: x.y has no type text",
        ),
        (
            "{id: x.y, type: int, brief: X.}",
            "more: x.y has no stability, or no brief",
        ),
        (
            "{id: x.y, type: int, stability: stable}",
            "more: x.y has no stability, or no brief",
        ),
        (
            "{id: x.y, type: string, brief: X., stability: stable}",
            "more: x.y is text and has no examples",
        ),
    ] {
        assert!(
            problems_with(&group(attribute)).starts_with(problem),
            "{attribute}"
        );
    }
}

#[test]
fn another_type_needs_a_reason() {
    assert_eq!(
        problems_with(&group("{ref: url.path, annotations: {type: int}}")),
        "more: url.path has another type, and no note that says why"
    );
    assert_eq!(
        problems_with(&group(
            "{ref: url.path, note: Because., annotations: {type: int}}"
        )),
        ""
    );
    assert_eq!(
        problems_with(&group("{ref: status, annotations: {type: int}}")),
        ""
    );
}

#[test]
fn what_the_form_does_not_know_is_refused() {
    let problem = problems_with(&group("{ref: http.route, requirement: required}"));
    assert!(problem.contains("requirement"), "{problem}");
}

#[test]
fn a_metric_that_upstream_does_not_have_cannot_be_imported() {
    assert_eq!(
        problems_with("imports: {metrics: [http.server.duration.seconds]}"),
        "http.server.duration.seconds: no such metric of upstream, or a deprecated one"
    );
}
