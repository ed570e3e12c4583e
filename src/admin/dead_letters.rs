use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use headworks_actors::{Code, DeadLetter, DeadLetterQuery, TenantId};
use serde::{Deserialize, Serialize};

use super::{Admin, Problem};

/// A dead letter as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its name, unique for ever.
    pub id: String,
    /// `frame` or `event`.
    pub kind: String,
    /// Whose, where that is known.
    pub tenant: Option<TenantId>,
    /// The source it came from, where that is known.
    pub source: Option<String>,
    /// The code of why it was given up.
    pub reason: String,
    /// More of why.
    pub detail: String,
    /// How often storing it was tried.
    pub attempts: u32,
    /// When it arrived: RFC 3339.
    pub first_at: String,
    /// When it was given up: RFC 3339.
    pub last_at: String,
    /// The batch it was in.
    pub batch: Option<String>,
    /// Its place there.
    pub place: Option<u32>,
    /// The size of the frame as it came, in bytes.
    pub original_bytes: u64,
    /// The bytes that are kept.
    #[serde(flatten)]
    pub body: LetterBody,
}

/// The bytes of a letter: one of two fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LetterBody {
    /// Where they are UTF-8.
    #[serde(rename = "body")]
    Text(String),
    /// Where they are not.
    #[serde(rename = "body_hex", with = "hex")]
    Bytes(Vec<u8>),
}

impl LetterBody {
    /// The bytes as they came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for LetterBody {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(bytes.to_vec()),
        }
    }
}

impl From<&DeadLetter> for Letter {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            id: letter.id.to_string(),
            kind: letter.kind.as_str().to_owned(),
            tenant: letter.tenant.clone(),
            source: letter.source.as_deref().map(str::to_owned),
            reason: letter.cause.code.as_str().to_owned(),
            detail: letter.cause.detail.to_string(),
            attempts: letter.attempts,
            first_at: letter.first_at.to_string(),
            last_at: letter.last_at.to_string(),
            batch: letter.batch.as_ref().map(|(id, _)| id.to_string()),
            place: letter.batch.as_ref().map(|(_, place)| *place),
            original_bytes: letter.original_bytes,
            body: LetterBody::from(&*letter.body),
        }
    }
}

/// Two digits a byte.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Digits(bytes))
    }

    struct Digits<'a>(&'a [u8]);

    impl std::fmt::Display for Digits<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pairs = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<_> = pairs.map(|pair| if pair.len() == 2 { byte(pair) } else { None }).collect();
        bytes.ok_or_else(|| D::Error::custom("not pairs of hexadecimal digits"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    tenant: Option<TenantId>,
    reason: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(admin): State<Admin>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Vec<Letter>>, Problem> {
    let Query(wanted) = wanted?;
    let mut query = DeadLetterQuery::default();
    query.tenant = wanted.tenant;
    query.code = wanted.reason.map(|word| reason(&word)).transpose().map_err(Problem::bad_request)?;
    match wanted.limit {
        Some(0) => return Err(Problem::bad_request("limit is 0; it must be at least 1")),
        Some(limit) => query.limit = usize::try_from(limit).unwrap_or(usize::MAX),
        None => {}
    }
    let letters = admin.read(move |store| store.dead_letters(&query)).await?;
    Ok(Json(letters.iter().map(Letter::from).collect()))
}

/// The code of this name.
///
/// # Errors
/// There is none; the valid ones are named.
pub fn reason(word: &str) -> Result<Code, String> {
    let valid = || Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", ");
    let known = Code::ALL.iter().copied().find(|code| code.as_str() == word);
    known.ok_or_else(|| format!("{word:?} is no reason; valid: {}", valid()))
}

pub(super) async fn show(
    State(admin): State<Admin>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Letter>, Problem> {
    let Path(id) = id?;
    let wanted = id.clone();
    match admin.read(move |store| store.dead_letter(&wanted)).await? {
        Some(letter) => Ok(Json(Letter::from(&letter))),
        None => Err(Problem::not_found(format!("there is no dead letter {id:?}"))),
    }
}
