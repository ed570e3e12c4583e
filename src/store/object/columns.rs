//! Fields of events as columns: a pure rule.

/// What a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    /// A string as it is, anything else as JSON.
    Text,
    Integer,
    Number,
    Boolean,
}

/// A field of the events, by its path, and what it is in its column. What is of another type, or not there, is null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(super) path: String,
    pub(super) kind: ColumnType,
}

/// Those that every row has.
pub(super) const FIXED: [&str; 8] = ["batch", "seq", "idx", "tenant", "arrived_at", "event_time", "body", "raw"];

impl Column {
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with its key.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (path, kind) = text.rsplit_once(':').unwrap_or((text, "text"));
        let kind = match kind {
            "text" => ColumnType::Text,
            "integer" => ColumnType::Integer,
            "number" => ColumnType::Number,
            "boolean" => ColumnType::Boolean,
            _ => {
                return Err(format!(
                    "has {text:?}, but a column is text, integer, number or boolean: \"latency:number\""
                ));
            }
        };
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return Err(format!(
                "has {text:?}, but the path of a field is names with dots between them: \"card.number\""
            ));
        }
        if FIXED.contains(&path) {
            return Err(format!("has {text:?}, but every row has a column of that name already: leave it out"));
        }
        Ok(Self { path: path.to_owned(), kind })
    }

    /// All of them.
    pub(crate) fn parse_all(columns: &[String]) -> Result<Vec<Self>, String> {
        let mut all: Vec<Self> = vec![];
        for text in columns {
            let column = Self::parse(text)?;
            if all.iter().any(|other| other.path == column.path) {
                return Err(format!("has {:?} twice", column.path));
            }
            all.push(column);
        }
        Ok(all)
    }

    #[cfg(feature = "parquet")]
    pub(super) fn of<'v>(&self, event: &'v serde_json::Value) -> Option<&'v serde_json::Value> {
        self.path.split('.').try_fold(event, |value, name| value.get(name)).filter(|value| !value.is_null())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_cannot_be_is_refused_with_the_reason() {
        for (columns, says) in [
            (&["a:float"][..], "integer, number or boolean"),
            (&[""], "names with dots"),
            (&["a..b:text"], "names with dots"),
            (&["tenant"], "already"),
            (&["a", "a:number"], "has \"a\" twice"),
        ] {
            let columns: Vec<_> = columns.iter().map(ToString::to_string).collect();
            let why = Column::parse_all(&columns).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        assert_eq!(Column::parse("a.b:integer"), Ok(Column { path: "a.b".into(), kind: ColumnType::Integer }));
    }
}
