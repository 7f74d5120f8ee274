//! How a JSON object becomes a message: [`message!`] names the key, the field and the form of each field of a type, and
//! [`Object`] and [`List`] read the type by it.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// A message whose fields are known by the keys that they have in JSON.
pub(super) trait Fields: Default {
    /// Reads the value at `key` into its field; `false`, and nothing read, when there is no such field.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Implements [`Fields`]. `"key" => field: Form` is a field, nothing by default; `"key" => optional field: Form` one that
/// is an `Option`; `"key" => field = Variant: Form` one of the alternatives of a `oneof`. A `Form` is a type with the
/// field's value at `.0`; `null` is as if the key were not there.
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

/// A JSON object read as a message.
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

/// A JSON array of objects.
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

/// Borrowed from the body unless something in it is escaped.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor).map(Self)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}
