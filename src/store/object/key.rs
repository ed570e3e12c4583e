//! The names of objects: a pure rule, there and back.

use headworks_actors::{BatchId, Opening, Piece, Seq, TenantId, UnixMillis};

/// The folder of what the store keeps for itself. No tenant can have the name.
pub(super) const OWN: &str = "_headworks";

/// The folder of batches that are not yet part of a pack, where there are packs.
pub(super) const WAITING: &str = "_headworks/batches";

/// Where a batch stands among those of its tenant and its opening.
pub(super) type Place = (Seq, Piece);

/// The day, in UTC, that a batch is filed under: that of its first event's arrival.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Day(String);

impl Day {
    pub(super) fn of(at: UnixMillis) -> Self {
        let text = at.to_string();
        // What no calendar has, far before 1970 or after 9999, has a day of its own.
        Self(match text.split_once('T') {
            Some((day, _)) => day.to_owned(),
            None => "other".to_owned(),
        })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_part = |byte: u8| byte.is_ascii_digit() || byte == b'-';
        let is_date = text.len() == 10 && text.bytes().all(is_part);
        (is_date || text == "other").then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of one object with a batch: whose, when, and in which of the batch's lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) batch: BatchId,
    /// None where the template has no date.
    pub(super) day: Option<Day>,
    /// The attempt that was rolled back last before; 0 where none was.
    pub(super) life: u32,
}

/// The name of an object with several batches of a tenant, of one opening, one page and one day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PackName {
    /// What is in it stands between these two, and with them.
    pub(super) first: Place,
    pub(super) last: Place,
    /// So many that begin alike were named before.
    pub(super) nth: u32,
    pub(super) day: Option<Day>,
}

impl PackName {
    pub(super) fn may_have(&self, place: Place) -> bool {
        (self.first..=self.last).contains(&place)
    }

    /// Whether some batch might be in either.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.day == other.day && self.first <= other.last && other.first <= self.last
    }
}

/// How objects are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    text: String,
    ending: &'static str,
}

const TENANT: &str = "{tenant}";
const DATE: &str = "{date}";
const BATCH: &str = "{batch}";

impl Template {
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with its key.
    pub(crate) fn new(text: &str, ending: &'static str) -> Result<Self, String> {
        for (what, least) in [(TENANT, 1), (DATE, 0), (BATCH, 1)] {
            let times = text.matches(what).count();
            if times < least || times > 1 {
                let how = if times > 1 { "twice" } else { "not at all" };
                return Err(format!("is {text:?}, and has {what} {how}, so that objects could not be told apart"));
            }
            // So that it ends where it ends, whatever it stands for.
            if let Some((before, after)) = text.split_once(what)
                && !(before.is_empty() || before.ends_with(['/', '='])) | !(after.is_empty() || after.starts_with('/'))
            {
                return Err(format!("is {text:?}, but {what} must fill what is between \"/\", or \"=\" and \"/\""));
            }
        }
        if !text.rsplit('/').next().is_some_and(|last| last.contains(BATCH)) {
            return Err(format!("is {text:?}, but must end with {BATCH}"));
        }
        let plain = [TENANT, DATE, BATCH].iter().fold(text.to_owned(), |plain, what| plain.replace(what, "x"));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/=-_.".contains(&byte);
        if !plain.bytes().all(is_plain) {
            return Err(format!(
                "is {text:?}, but beside {TENANT}, {DATE} and {BATCH} it may have letters, digits, \"/\", \"=\", \"-\", \"_\" and \".\""
            ));
        }
        let is_name = |part: &str| !part.is_empty() && !part.bytes().all(|byte| byte == b'.');
        if !plain.split('/').all(is_name) || text.starts_with(OWN) {
            return Err(format!(
                "is {text:?}, but must be names with single slashes between them, and not begin with {OWN}"
            ));
        }
        Ok(Self { text: text.to_owned(), ending })
    }

    /// The day that a batch is filed under by it.
    pub(super) fn day(&self, at: UnixMillis) -> Option<Day> {
        self.text.contains(DATE).then(|| Day::of(at))
    }

    pub(super) fn key(&self, name: &Name) -> String {
        self.named(&name.batch.tenant, name.day.as_ref(), &stem(&name.batch, name.life))
    }

    pub(super) fn pack_key(&self, tenant: &TenantId, opening: Opening, name: &PackName) -> String {
        let again = if name.nth > 0 { format!("-p{}", name.nth) } else { String::new() };
        let stem = format!("{opening}-{}-{}{again}", place_text(name.first), place_text(name.last));
        self.named(tenant, name.day.as_ref(), &stem)
    }

    fn named(&self, tenant: &TenantId, day: Option<&Day>, stem: &str) -> String {
        // Nothing of this needs to be escaped: by its grammar a tenant begins with a letter or a digit, and goes on with these,
        // with ".", "_" and "-".
        let text = self.text.replace(DATE, day.map_or("", Day::as_str)).replace(BATCH, stem);
        format!("{}.{}", text.replace(TENANT, tenant.as_str()), self.ending)
    }

    /// The folder that has all objects of the tenant, and as few others as can be.
    pub(super) fn folder(&self, tenant: &TenantId) -> String {
        let folders = self.text.split('/').take_while(|part| !part.contains(DATE) && !part.contains(BATCH));
        folders.collect::<Vec<_>>().join("/").replace(TENANT, tenant.as_str())
    }

    /// What an object of this key is; none of the store's where it is none.
    pub(super) fn parse(&self, key: &str) -> Option<Name> {
        let (tenant, day, stem) = self.parts(key)?;
        let (batch, life) = batch_of(tenant, stem)?;
        Some(Name { batch, day, life })
    }

    /// What a pack of this key is; none where it is none.
    pub(super) fn parse_pack(&self, key: &str) -> Option<(TenantId, Opening, PackName)> {
        let (tenant, day, stem) = self.parts(key)?;
        let (places, nth) = match stem.split_once("-p") {
            Some((places, nth)) => (places, nth.parse().ok()?),
            None => (stem, 0),
        };
        let (first, last) = places.rsplit_once('-')?;
        let (id, _) = batch_of(tenant, first)?;
        let name = PackName { first: id.place(), last: parse_place(last)?, nth, day };
        (self.pack_key(&id.tenant, id.opening, &name) == key).then_some((id.tenant, id.opening, name))
    }

    /// The tenant, the day and what the batch is called.
    fn parts<'k>(&self, key: &'k str) -> Option<(&'k str, Option<Day>, &'k str)> {
        let key = key.strip_suffix(self.ending)?.strip_suffix('.')?;
        let (mut tenant, mut day, mut batch) = (None, None, None);
        let (parts, patterns) = (key.split('/'), self.text.split('/'));
        if parts.clone().count() != patterns.clone().count() {
            return None;
        }
        for (part, pattern) in parts.zip(patterns) {
            let Some((before, _)) = pattern.split_once('{') else {
                if part != pattern {
                    return None;
                }
                continue;
            };
            let value = Some(part.strip_prefix(before)?);
            if pattern.ends_with(TENANT) {
                tenant = value;
            } else if pattern.ends_with(DATE) {
                day = Some(Day::parse(value?)?);
            } else {
                batch = value;
            }
        }
        Some((tenant?, day, batch?))
    }
}

pub(super) fn place_text((seq, piece): Place) -> String {
    format!("{:012}{piece}", seq.0)
}

pub(super) fn parse_place(text: &str) -> Option<Place> {
    // As within an id, of whatever opening and tenant.
    Some(format!("0/a/{text}").parse::<BatchId>().ok()?.place())
}

/// What a batch is called within its tenant: names are sorted as batches are.
pub(super) fn stem(id: &BatchId, life: u32) -> String {
    let again = if life > 0 { format!("-r{life}") } else { String::new() };
    format!("{}-{}{again}", id.opening, place_text(id.place()))
}

/// The batch that is called so, and its life.
pub(super) fn batch_of(tenant: &str, stem: &str) -> Option<(BatchId, u32)> {
    let (name, life) = match stem.split_once("-r") {
        Some((name, life)) => (name, life.parse().ok()?),
        None => (stem, 0),
    };
    let (opening, seq) = name.split_once('-')?;
    let id: BatchId = format!("{opening}/{tenant}/{seq}").parse().ok()?;
    (stem == self::stem(&id, life)).then_some((id, life))
}

/// The folder of the marks about the tenant's batches that one opening cut, so many of them in one.
pub(super) fn page(id: &BatchId, size: u64) -> (Opening, u64, String) {
    let block = id.seq.0 / size;
    (id.opening, block, format!("{}/{}/{block:012}", pages(Some(&id.tenant)), id.opening))
}

/// The folder of all pages, or of a tenant's.
pub(super) fn pages(tenant: Option<&TenantId>) -> String {
    match tenant {
        Some(tenant) => format!("{OWN}/pages/{tenant}"),
        None => format!("{OWN}/pages"),
    }
}

/// What a key is a mark of: whose batches, of which opening, and its name.
pub(super) fn mark_of(key: &str) -> Option<(TenantId, Opening, &str)> {
    let mut parts = key.strip_prefix(OWN)?.strip_prefix("/pages/")?.splitn(4, '/');
    let (tenant, opening, _, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let id = format!("{opening}/{tenant}/0").parse::<BatchId>().ok()?;
    Some((id.tenant, id.opening, name))
}

/// Which page a key is a mark on: of which opening, and its number.
pub(super) fn page_of(key: &str) -> Option<(Opening, u64)> {
    let (_, opening, _) = mark_of(key)?;
    Some((opening, key.rsplit('/').nth(1)?.parse().ok()?))
}

/// So many batches of a tenant share a page. It costs a request and a listing to begin one; a rollback looks at each day on it.
pub(super) const PAGE: u64 = 64;

/// The same where there are packs, since none goes beyond a page.
pub(super) const PACKED_PAGE: u64 = 1024;

#[cfg(test)]
mod tests {
    use headworks_actors::{Piece, Seq};
    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn an_object_is_named_by_tenant_day_and_batch_and_sorted_as_they_are() {
        let template = Template::new("{tenant}/{date}/{batch}", "ndjson.zst").unwrap();
        let batch = BatchId::new(Opening(1), tenant("acme"), Seq(42));
        let day = template.day(UnixMillis(1_732_233_600_000));
        let name = Name { batch: batch.clone(), day: day.clone(), life: 0 };
        assert_eq!(template.key(&name), "acme/2024-11-22/0000000000000001-000000000042.ndjson.zst");
        let halved = Name { batch: batch.halves().unwrap()[1].clone(), day, life: 3 };
        assert_eq!(template.key(&halved), "acme/2024-11-22/0000000000000001-000000000042.2-r3.ndjson.zst");
        assert_eq!(template.folder(&tenant("acme")), "acme");
        let hive = Template::new("raw/date={date}/tenant={tenant}/{batch}", "parquet").unwrap();
        assert_eq!(hive.folder(&tenant("acme")), "raw");
        assert_eq!(Day::of(UnixMillis(i64::MAX)).as_str(), "other");
    }

    #[test]
    fn a_template_that_could_name_two_batches_alike_or_leave_its_folder_is_refused_with_the_reason() {
        for (text, says) in [
            ("{batch}", "has {tenant} not at all"),
            ("{tenant}/{tenant}/{batch}", "has {tenant} twice"),
            ("{tenant}", "has {batch} not at all"),
            ("{tenant}-{batch}", "must fill"),
            ("{batch}/{tenant}", "must end with {batch}"),
            ("{tenant}/x{batch}", "must fill"),
            ("../{tenant}/{batch}", "single slashes"),
            ("/{tenant}/{batch}", "single slashes"),
            ("a//{tenant}/{batch}", "single slashes"),
            ("_headworks/{tenant}/{batch}", "not begin with _headworks"),
            ("{tenant}/{hour}/{batch}", "it may have letters"),
            ("a b/{tenant}/{batch}", "it may have letters"),
        ] {
            let why = Template::new(text, "parquet").unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    #[test]
    fn a_mark_is_on_a_page() {
        let id = BatchId::new(Opening(7), tenant("acme"), Seq(64 * 5 + 3));
        let (opening, block, folder) = page(&id, PAGE);
        assert_eq!(page_of(&format!("{folder}/day-all")), Some((opening, block)));
        assert_eq!((block, page_of("_headworks/store.json")), (5, None));
    }

    proptest! {
        #[test]
        fn every_name_is_read_back_from_its_key(
            which in 0..4usize, opening: u64, seq: u64, piece in 1..64u64, life: u32, at: i64,
            name in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        ) {
            let text = ["{tenant}/{date}/{batch}", "{tenant}/{batch}", "a/b={date}/c={tenant}/{batch}", "{date}/{tenant}/x={batch}"][which];
            let template = Template::new(text, "ndjson.zst").unwrap();
            let batch = BatchId { piece: Piece::of_number(piece).unwrap(), ..BatchId::new(Opening(opening), tenant(&name), Seq(seq)) };
            let name = Name { batch, day: template.day(UnixMillis(at)), life };
            let key = template.key(&name);
            prop_assert!(key.starts_with(&template.folder(&name.batch.tenant)));
            prop_assert_eq!(template.parse_pack(&key), None);
            prop_assert_eq!(template.parse(&key), Some(name));
        }

        #[test]
        fn every_name_of_a_pack_is_read_back_from_its_key_and_taken_for_no_batch(
            which in 0..3usize, opening: u64, seqs: [u64; 2], pieces in [1..64u64, 1..64u64], nth in 0..3u32, at: i64,
            name in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        ) {
            let text = ["{tenant}/{date}/{batch}", "{tenant}/{batch}", "a/b={date}/c={tenant}/{batch}"][which];
            let template = Template::new(text, "ndjson.zst").unwrap();
            let place = |n: usize| (Seq(seqs[n]), Piece::of_number(pieces[n]).unwrap());
            let pack = PackName { first: place(0), last: place(1), nth, day: template.day(UnixMillis(at)) };
            let key = template.pack_key(&tenant(&name), Opening(opening), &pack);
            prop_assert_eq!(template.parse(&key), None);
            prop_assert_eq!(template.parse_pack(&key), Some((tenant(&name), Opening(opening), pack)));
        }

        #[test]
        fn what_others_put_there_is_none_of_ours(key in "[a-z0-9./{}_-]{0,60}") {
            let template = Template::new("{tenant}/{date}/{batch}", "ndjson.zst").unwrap();
            prop_assert_eq!(template.parse(&key), None);
        }
    }
}
