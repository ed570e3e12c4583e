use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::Json;
use super::json_value::{Plain, Value};
use super::strict_json::Checked;
use crate::model::UnixMillis;

/// What an object says in the fields that matter.
pub(super) struct Fields<'f> {
    pub(super) tenant: Tenant<'f>,
    pub(super) time: Option<UnixMillis>,
}

/// What the tenant field says.
pub(super) enum Tenant<'f> {
    Missing,
    Named(Cow<'f, str>),
    Other(&'static str),
    Twice,
}

/// Reads an object.
pub(super) struct Object<'d>(pub(super) &'d Json);

impl<'f> DeserializeSeed<'f> for Object<'_> {
    type Value = Fields<'f>;

    #[inline]
    fn deserialize<D: Deserializer<'f>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'f> Visitor<'f> for Object<'_> {
    type Value = Fields<'f>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    #[inline]
    fn visit_map<A: MapAccess<'f>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields { tenant: Tenant::Missing, time: None };
        while let Some(name) = map.next_key_seed(Name(self.0))? {
            match name {
                Field::Tenant => {
                    let value = map.next_value_seed(Plain)?;
                    fields.tenant = match (fields.tenant, value) {
                        (Tenant::Missing, Value::Text(name)) => Tenant::Named(name),
                        (Tenant::Missing, value) => Tenant::Other(value.kind()),
                        _ => Tenant::Twice,
                    };
                }
                Field::Time => fields.time = map.next_value_seed(Plain)?.millis(),
                Field::Other => map.next_value_seed(Checked)?,
            }
        }
        Ok(fields)
    }
}

enum Field {
    Tenant,
    Time,
    Other,
}

/// Reads the name of a field, without a copy of it.
struct Name<'d>(&'d Json);

impl<'f> DeserializeSeed<'f> for Name<'_> {
    type Value = Field;

    #[inline]
    fn deserialize<D: Deserializer<'f>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    #[inline]
    fn visit_str<E>(self, name: &str) -> Result<Field, E> {
        Ok(if *name == *self.0.tenant_field {
            Field::Tenant
        } else if self.0.time_field.as_deref() == Some(name) {
            Field::Time
        } else {
            Field::Other
        })
    }
}
