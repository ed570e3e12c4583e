use headworks_actors::{Code, DeadLetter, DeadLetterQuery, TenantId, UnixMillis};
use serde::{Deserialize, Serialize};

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
    /// When it happened, of an event that says so: RFC 3339.
    pub time: Option<String>,
    /// When it was edited, if it was: RFC 3339.
    pub edited_at: Option<String>,
    /// The bytes as they came, of one that was edited.
    pub original: Option<LetterBody>,
    /// When a replay brought it back, if one did: RFC 3339.
    pub replayed_at: Option<String>,
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
            time: letter.time.map(|time| time.to_string()),
            edited_at: letter.edit.as_ref().map(|edit| edit.at.to_string()),
            original: letter.edit.as_ref().map(|edit| LetterBody::from(&*edit.original)),
            replayed_at: letter.replayed_at.map(|at| at.to_string()),
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

/// Which dead letters, as JSON or as a query string.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// Only these. Not in a query string.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Only of this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Only with this code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only those given up at this time or later, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// Only those given up before this time, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Only those that a replay brought back, or only those that none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<bool>,
    /// At most so many, the newest ones; default 100. For a list alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl LetterFilter {
    /// The same, as the dead letters are asked.
    ///
    /// # Errors
    /// The reason is none, or the limit is 0.
    pub fn query(&self) -> Result<DeadLetterQuery, String> {
        let mut query = DeadLetterQuery::default();
        query.ids = self.ids.iter().map(|id| id.as_str().into()).collect();
        query.tenant.clone_from(&self.tenant);
        query.code = self.reason.as_deref().map(reason).transpose()?;
        query.since = self.since.map(UnixMillis);
        query.until = self.until.map(UnixMillis);
        query.replayed = self.replayed;
        match self.limit {
            Some(0) => return Err("limit is 0; it must be at least 1".to_owned()),
            Some(limit) => query.limit = usize::try_from(limit).unwrap_or(usize::MAX),
            None => {}
        }
        Ok(query)
    }
}

/// How dead letters are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LettersAs {
    /// One [`Letter`] a line.
    #[default]
    Ndjson,
    /// The bodies, each with a newline behind it.
    Raw,
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
