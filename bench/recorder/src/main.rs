//! Records the spans of a number of requests with one of several libraries, exports them to a receiver, and
//! checks that all of them arrived. `bench/recorder/run` counts the instructions of this program.
//!
//! `recorder-bench <variant> <requests>` prints the number of spans and the number of bytes received.
//! `recorder-bench receive` runs the receiver. The program starts it as a separate process, so that its
//! instructions are not counted.

mod direct;
mod fast;
mod receiver;
mod recorder;
mod request;
mod sdk;
mod service;
mod traced;

use std::io::{self, Write};

use receiver::Receiver;
use request::Variant;

/// Number of requests after which the program waits for their spans: 512 spans are a full batch.
const BATCH: u64 = 256;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["receive"] => receiver::receive(),
        [variant, requests] => run(variant, requests.parse()?),
        _ => Err("usage: recorder-bench <variant> <requests>".into()),
    }
}

fn run(name: &str, requests: u64) -> Result {
    if !requests.is_multiple_of(BATCH) {
        return Err(format!("the number of requests must be a multiple of {BATCH}").into());
    }
    // Only otel-service can be disabled.
    let spans = if std::env::var_os("OTEL_SDK_DISABLED").is_some() {
        0
    } else {
        2
    };
    let mut receiver = Receiver::start()?;
    let variant = variant(name, receiver.endpoint())?;
    let inputs = request::inputs();
    for batch in 1..=requests / BATCH {
        for input in inputs.iter().cycle().take(BATCH as usize) {
            variant.request(input);
        }
        variant.end_batch()?;
        // Waiting keeps the queue from overflowing: dropped spans would make a variant look cheaper.
        receiver.wait_for_spans(spans * BATCH * batch)?;
    }
    variant.shutdown()?;
    let received = receiver.finish()?;
    if received.spans != spans * requests {
        return Err(format!("{} of {} spans arrived", received.spans, spans * requests).into());
    }
    writeln!(io::stdout(), "{} {}", received.spans, received.bytes)?;
    Ok(())
}

fn variant(name: &str, endpoint: &str) -> Result<Box<dyn Variant>> {
    Ok(match name {
        "recorder" => Box::new(recorder::Recorder::start(endpoint, false)),
        "recorder-prewritten" => Box::new(recorder::Recorder::start(endpoint, true)),
        "service" => Box::new(service::Instrumented::start()?),
        "sdk-recorder" => Box::new(sdk::Sdk::with_recorder(endpoint)?),
        "sdk-direct" => Box::new(sdk::Sdk::with_direct_exporter(endpoint)?),
        "sdk" => Box::new(sdk::Sdk::with_otlp(endpoint)?),
        "tracing-recorder" => Box::new(traced::Layered::start(endpoint)?),
        "tracing" => Box::new(traced::Traced::start(endpoint)?),
        "fastrace" => Box::new(fast::Fast::start(endpoint)?),
        _ => return Err(format!("no variant is called {name}").into()),
    })
}
