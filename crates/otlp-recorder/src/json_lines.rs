//! The format of OTLP's file exporter (OpenTelemetry specification, "OpenTelemetry Protocol File Exporter").

use std::io;
use std::sync::{Mutex, PoisonError};

use crate::destination::CustomExporter;
use crate::transport::json_body;

impl CustomExporter {
    /// Creates an exporter that writes each request as a line of JSON, the format of OTLP's file exporter.
    ///
    /// `output` must not block for long: a file, not a pipe.
    ///
    /// ```
    /// use otlp_recorder::CustomExporter;
    ///
    /// # let path = std::env::temp_dir().join(format!("traces-{}.jsonl", std::process::id()));
    /// let exporter = CustomExporter::json_lines(std::fs::File::create(&path)?);
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn json_lines(output: impl io::Write + Send + 'static) -> Self {
        let output = Mutex::new(output);
        Self::new("otlp_file", move |request| {
            let mut line = json_body(request);
            line.push(b'\n');
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.write_all(&line)?;
            output.flush()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::destination::Request;
    use crate::signal::Signal;

    use super::*;

    #[derive(Clone, Default)]
    struct File(Arc<Mutex<Vec<u8>>>);

    impl io::Write for File {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_request_is_one_line_of_json() {
        let file = File::default();
        let exporter = CustomExporter::json_lines(file.clone());
        // A resource group with the schema URL "a\nb".
        let request = [0x0a, 5, 0x1a, 3, b'a', b'\n', b'b'];
        for signal in [Signal::Traces, Signal::Logs] {
            let request = Request::new(signal, request.to_vec().into());
            exporter.export(&request).unwrap();
        }
        let written = String::from_utf8(file.0.lock().unwrap().clone()).unwrap();
        let expected = [
            r#"{"resourceSpans":[{"schemaUrl":"a\nb"}]}"#,
            r#"{"resourceLogs":[{"schemaUrl":"a\nb"}]}"#,
        ];
        assert_eq!(written, format!("{}\n{}\n", expected[0], expected[1]));
    }
}
