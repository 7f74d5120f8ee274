//! Values that the tasks of a worker share, by type.

use std::{
    any::{Any, TypeId, type_name},
    collections::HashMap,
    fmt,
    sync::Arc,
};

#[derive(Clone, Default)]
pub(crate) struct Data(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Data {
    pub(crate) fn add<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// Returns the value of type `T`.
    ///
    /// # Panics
    /// Panics if there is no such value.
    pub(crate) fn get<T: 'static>(&self) -> &T {
        let value = self.0.get(&TypeId::of::<T>());
        value
            .and_then(|value| value.downcast_ref())
            .unwrap_or_else(|| panic!("the worker has no data of type {}", type_name::<T>()))
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data")
            .field("values", &self.0.len())
            .finish_non_exhaustive()
    }
}
