//! What is sent with a request, as JSON.

use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Problem;

/// JSON as it is read from anybody: `5.0` is a whole number there as much as `5` is.
pub(super) struct Whole<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Whole<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let Json(mut value) = Json::<Value>::from_request(request, state).await?;
        whole(&mut value);
        // A list would be read as the fields in their order.
        if !value.is_object() {
            let why = "the JSON is not what it must be: an object";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why));
        }
        let read = serde_json::from_value(value).map(Self);
        read.map_err(|why| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the JSON is not what it must be: {why}"))
        })
    }
}

/// The first whole number that an i64 does not hold.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

#[expect(clippy::cast_possible_truncation, reason = "a whole number that an i64 holds")]
fn whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < TOO_LARGE);
            if let Some(whole) = whole {
                *number = (whole as i64).into();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(self::whole),
        Value::Object(values) => values.values_mut().for_each(self::whole),
        _ => {}
    }
}
