use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, ValueDeserializer};

use super::check::{Problem, check, nth_rule};
use super::error::{Place, reworded};
use super::laid::{index, laid, rules};
use super::layers::{Layers, Override};
use super::typed::Typed;
use super::{Config, ConfigError};

/// All layers in one table.
///
/// Every value keeps its span. In the file that is its place in the text; what a variable or a flag sets has spans from
/// [`FIRST`] on, beyond any file, one number each. So one pass of the deserialiser over the whole can tell whose fault an
/// error is.
pub(super) struct Tree<'l> {
    layers: &'l Layers,
    pub(super) root: DeTable<'l>,
    /// One for each of the settings in the layers.
    pub(super) overrides: Vec<Override>,
}

/// The span of what the first setting sets.
const FIRST: usize = usize::MAX / 2;

impl<'l> Tree<'l> {
    pub(super) fn grow(layers: &'l Layers) -> Result<Self, ConfigError> {
        let mut tree = Self { layers, root: DeTable::new(), overrides: vec![] };
        if let Some((file, text)) = &layers.file {
            let table = DeTable::parse(text).map_err(|why| {
                let place = why.span().map_or(Place::File(file.clone()), |span| Place::in_file(file, text, &span));
                let what = match why.span().and_then(|span| text.get(span)) {
                    Some(key) if why.message().starts_with("duplicate key") => {
                        format!("{:?} is there twice", key.trim_matches(['"', '\'']))
                    }
                    _ => why.message().trim_end().to_owned(),
                };
                ConfigError::new(place, None, format!("this is no valid TOML: {what}"))
            })?;
            tree.root = table.into_inner();
        }
        for setting in &layers.settings {
            let refused =
                |key: String, why: String| ConfigError::new(Place::Named(setting.name.clone()), Some(key), why);
            let path = tree.resolve(&setting.path).map_err(|why| refused(dotted(&setting.path), why))?;
            let key = dotted(&path);
            // A flag is meant to win over a variable; two variables are a riddle.
            let is_variable = |name: &str| name.starts_with("HEADWORKS_");
            let twin = tree.overrides.iter().find(|earlier| earlier.key == key && is_variable(&earlier.name));
            if let Some(twin) = twin.filter(|_| is_variable(&setting.name)) {
                return Err(refused(key.clone(), format!("{key} is set by {} as well", twin.name)));
            }
            let value = match DeValue::parse(&setting.value) {
                Ok(value) => value.into_inner(),
                Err(_) => DeValue::String(setting.value.as_str().into()),
            };
            tree.set(&path, value);
            tree.overrides.push(Override { key, name: setting.name.clone() });
        }
        Ok(tree)
    }

    pub(super) fn read(&self) -> Result<Config, ConfigError> {
        let whole = laid(self)?;
        let whole = ValueDeserializer::from(Spanned::new(0..0, DeValue::Table(whole)));
        let config = Config::from(Typed::deserialize(whole).map_err(|why| self.explain(&why))?);
        check(&config).map_err(|problem| self.locate(&problem))?;
        Ok(config)
    }

    /// The path as the layers below spell it, so that a variable in capitals reaches `[tenants.by_id.Acme]`.
    fn resolve(&self, path: &[String]) -> Result<Vec<String>, String> {
        let mut table = Some(&self.root);
        let mut spelt = |level: &String| {
            let keys = table.into_iter().flat_map(|table| table.keys().map(|key| key.get_ref().as_ref()));
            let alike: Vec<&str> = keys.filter(|key| key.eq_ignore_ascii_case(level)).collect();
            let key = match alike.as_slice() {
                [] => level.to_lowercase(),
                [one] => (*one).to_owned(),
                many if many.contains(&level.as_str()) => level.clone(),
                many => {
                    return Err(format!("{level:?} could be any of {}: write it like one of them", many.join(", ")));
                }
            };
            table = table.and_then(|table| table.get(key.as_str())).and_then(|value| value.get_ref().as_table());
            Ok(key)
        };
        path.iter().map(&mut spelt).collect()
    }

    fn set(&mut self, path: &[String], value: DeValue<'l>) {
        let at = FIRST + self.overrides.len();
        let span = at..at + 1;
        let value = path.iter().rev().fold(stamped(value, &span), |value, level| {
            let key = Spanned::new(span.clone(), DeString::from(level.clone()));
            Spanned::new(span.clone(), DeValue::Table(DeTable::from_iter([(key, value)])))
        });
        if let DeValue::Table(table) = value.into_inner() {
            merge(&mut self.root, table);
        }
    }

    /// An error of the deserialiser, in words and with its place.
    fn explain(&self, why: &toml::de::Error) -> ConfigError {
        let span = why.span().unwrap_or(0..0);
        let key = match self.override_at(&span) {
            Some(by) => Some(by.key.clone()),
            None => innermost(&self.root, &span).map(|path| dotted(&path)),
        };
        let prefix = key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default();
        ConfigError::new(self.place(&span), key, prefix + &reworded(why.message()))
    }

    /// A value that cannot work, with its place: where it is set, or else where the table begins that it is not set in.
    fn locate(&self, problem: &Problem) -> ConfigError {
        let (mut table, mut place) = (Some(&self.root), Place::Nowhere);
        for (depth, level) in problem.path.iter().enumerate() {
            let is_last = depth + 1 == problem.path.len();
            if let Some(nth) = index(level) {
                // The table around it was found: this is one of its rules.
                let Some(rule) = rules(&self.root).nth(nth) else { break };
                place = self.place(&rule.span());
                table = rule.get_ref().as_table();
                continue;
            }
            let Some((key, value)) = table.and_then(|table| table.get_key_value(level.as_str())) else { break };
            place = self.place(&if is_last { value.span() } else { key.span() });
            table = value.get_ref().as_table();
        }
        problem.at(place)
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        match (self.override_at(span), &self.layers.file) {
            (Some(by), _) => Place::Named(by.name.clone()),
            (None, Some((file, text))) => Place::in_file(file, text, span),
            (None, None) => Place::Nowhere,
        }
    }

    fn override_at(&self, span: &Range<usize>) -> Option<&Override> {
        span.start.checked_sub(FIRST).and_then(|at| self.overrides.get(at))
    }
}

/// Lays `upper` over `lower`, key by key; what is no table in both is replaced.
pub(super) fn merge<'l>(lower: &mut DeTable<'l>, upper: DeTable<'l>) {
    for (key, value) in upper {
        let span = value.span();
        match (lower.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(below)), DeValue::Table(above)) => merge(below, above),
            (_, value) => {
                // Without this the key of the lower layer would stay, and with it the wrong place.
                lower.remove(key.get_ref().as_ref());
                lower.insert(key, Spanned::new(span, value));
            }
        }
    }
}

/// The value with `span` on all of it.
fn stamped<'l>(value: DeValue<'l>, span: &Range<usize>) -> Spanned<DeValue<'l>> {
    let value = match value {
        DeValue::Table(table) => {
            let entries = table
                .into_iter()
                .map(|(key, value)| (Spanned::new(span.clone(), key.into_inner()), stamped(value.into_inner(), span)));
            DeValue::Table(entries.collect())
        }
        DeValue::Array(array) => {
            DeValue::Array(array.into_iter().map(|value| stamped(value.into_inner(), span)).collect())
        }
        plain => plain,
    };
    Spanned::new(span.clone(), value)
}

/// The path of the smallest entry that `span` lies in, be it in its key or in its value.
fn innermost(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    fn seek(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>, best: &mut Option<(usize, Vec<String>)>) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            for around in [key.span(), value.span()] {
                let narrower = best.as_ref().is_none_or(|(len, _)| around.len() <= *len);
                if around.start <= span.start && span.end <= around.end && narrower {
                    *best = Some((around.len(), path.clone()));
                }
            }
            match value.get_ref() {
                DeValue::Table(inner) => seek(inner, span, path, best),
                DeValue::Array(items) => items.iter().enumerate().for_each(|(nth, item)| {
                    if let DeValue::Table(inner) = item.get_ref() {
                        path.push(nth_rule(nth));
                        seek(inner, span, path, best);
                        path.pop();
                    }
                }),
                _ => {}
            }
            path.pop();
        }
    }
    let mut best = None;
    seek(table, span, &mut vec![], &mut best);
    best.map(|(_, path)| path)
}

/// `tenants.by_id."acme.eu".window`, `tenants.rules[1].match`
pub(super) fn dotted(path: &[String]) -> String {
    let is_bare =
        |level: &str| !level.is_empty() && level.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let level = |level: &String| if is_bare(level) { level.clone() } else { format!("{level:?}") };
    let joined = |mut key: String, next: &String| {
        if index(next).is_some() {
            return key + next;
        }
        if !key.is_empty() {
            key.push('.');
        }
        key + &level(next)
    };
    path.iter().fold(String::new(), joined)
}
