//! Decodes JSON objects into messages: [`message!`] lists the key, field and value type of each field of a
//! message, and [`Object`] and [`List`] deserialize it.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Message with fields that are read by their JSON keys.
pub(super) trait Fields: Default {
    /// Reads the value of `key` into its field; returns `false` without reading if there is no such field.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Implements [`Fields`] for a message.
///
/// `"key" => field: Form` declares a field that keeps its default if absent, `"key" => optional field: Form`
/// an `Option`, and `"key" => field = Variant: Form` an alternative of a `oneof`. A `Form` is a
/// deserializable wrapper of the value. `null` is treated as absent.
macro_rules! message {
    ($type:ty { $($key:literal => $($words:ident)+ $(= $variant:path)? : $form:ty),* $(,)? }) => {
        impl $crate::receive::json::fields::Fields for $type {
            fn read<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
            ) -> Result<bool, A::Error> {
                match key {
                    $($key => if let Some(value) = map.next_value::<Option<$form>>()? {
                        $crate::receive::json::fields::message!(@set self, value, $($words)+ $(= $variant)?);
                    },)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
    (@set $self:ident, $value:ident, optional $field:ident) => { $self.$field = Some($value.0) };
    (@set $self:ident, $value:ident, $field:ident) => { $self.$field = $value.0 };
    (@set $self:ident, $value:ident, $field:ident = $variant:path) => { $self.$field = Some($variant($value.0)) };
}

pub(super) use message;

/// Message read from a JSON object.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Fields> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut message = T::default();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if !message.read(&key.0, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(message)
    }
}

/// Messages read from a JSON array of objects.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: Fields> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData)).map(Self)
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Object<T>>()? {
            list.push(item.0);
        }
        Ok(list)
    }
}

/// Key of an object, borrowed from the body unless it has escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
