//! Wrappers of the `tracing` macros that add the name of the enclosing function.

/// Logs an error with `code.function.name`, the enclosing function.
///
/// Takes the same arguments as `tracing::error!`. See [`crate::info!`].
#[macro_export]
macro_rules! error {
    ($($event:tt)+) => { $crate::event_here!(ERROR, $($event)+) };
}

/// Logs a warning with `code.function.name`, the enclosing function.
///
/// Takes the same arguments as `tracing::warn!`. See [`crate::info!`].
#[macro_export]
macro_rules! warn {
    ($($event:tt)+) => { $crate::event_here!(WARN, $($event)+) };
}

/// Logs an informational event with `code.function.name`, the enclosing function.
///
/// Takes the same arguments as `tracing::info!`. `tracing` itself records the file, line and module of an
/// event, but not the function.
///
/// ```
/// let (id, slug) = (7, "first");
/// otel_service::info!(article.id = id, article.slug = slug, "Article created");
/// otel_service::info!(target: "audit", "{slug} was read");
/// ```
#[macro_export]
macro_rules! info {
    ($($event:tt)+) => { $crate::event_here!(INFO, $($event)+) };
}

/// Logs a debug event with `code.function.name`, the enclosing function.
///
/// Takes the same arguments as `tracing::debug!`. See [`crate::info!`].
#[macro_export]
macro_rules! debug {
    ($($event:tt)+) => { $crate::event_here!(DEBUG, $($event)+) };
}

/// Logs a trace event with `code.function.name`, the enclosing function.
///
/// Takes the same arguments as `tracing::trace!`. See [`crate::info!`].
#[macro_export]
macro_rules! trace {
    ($($event:tt)+) => { $crate::event_here!(TRACE, $($event)+) };
}

/// Returns whether an error logged here would be recorded, according to `RUST_LOG`.
#[macro_export]
macro_rules! error_enabled {
    () => {
        $crate::tracing::enabled!($crate::tracing::Level::ERROR)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! event_here {
    ($level:ident, target: $target:expr, $($event:tt)+) => {
        $crate::tracing::event!(
            target: $target,
            $crate::tracing::Level::$level,
            code.function.name = $crate::function_here!(),
            $($event)+
        )
    };
    ($level:ident, $($event:tt)+) => {
        $crate::tracing::event!(
            $crate::tracing::Level::$level,
            code.function.name = $crate::function_here!(),
            $($event)+
        )
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! function_here {
    () => {{
        fn here() {}
        $crate::function(here)
    }};
}

/// Returns the qualified name of the function that contains the function item `_inner`, without closures and
/// async blocks. The type name of a function item is its path.
#[doc(hidden)]
pub fn function<T>(_inner: T) -> &'static str {
    let mut name = std::any::type_name::<T>();
    name = name.strip_suffix("::here").unwrap_or(name);
    while let Some(outer) = name.strip_suffix("::{{closure}}") {
        name = outer;
    }
    name
}

#[cfg(test)]
mod tests {
    struct Wide<T>(T);

    impl<T> Wide<T> {
        async fn method(&self) -> &'static str {
            let within = async { Some(()).map(|()| function_here!()) };
            within.await.unwrap()
        }
    }

    trait Named {
        fn name(&self) -> &'static str;
    }

    impl Named for Wide<u8> {
        fn name(&self) -> &'static str {
            function_here!()
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_function_is_named_in_full_without_closures() {
        let module = module_path!();
        assert_eq!(
            function_here!(),
            format!("{module}::a_function_is_named_in_full_without_closures")
        );
        let method = Wide("x").method().await;
        assert_eq!(method, format!("{module}::Wide<_>::method"));
        assert_eq!(
            Wide(1).name(),
            format!("<{module}::Wide<u8> as {module}::Named>::name")
        );
    }
}
