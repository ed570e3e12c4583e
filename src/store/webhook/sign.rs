//! Signatures as standard webhooks have them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::hmac;

/// The secrets of a file: each signs, so that a server may know the old or the new one while they change.
pub(super) struct Secrets(Vec<hmac::Key>);

/// A file is a few lines.
const LONGEST: usize = 64 << 10;
/// Shorter ones can be guessed.
const SHORTEST: usize = 16;

impl Secrets {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let cannot =
            |why: &dyn std::fmt::Display| format!("cannot read the secret in {} (secret_file): {why}", path.display());
        Self::of(path).map_err(|why| cannot(&why))
    }

    /// Whether [`read`](Self::read) can use the file; else why not, without its name.
    pub(super) fn usable(path: &Path) -> Result<(), String> {
        Self::of(path).map(drop)
    }

    fn of(path: &Path) -> Result<Self, String> {
        Self::parse(&crate::secret_file::read(path, LONGEST).map_err(|why| why.to_string())?)
    }

    /// An error never has a secret in it.
    fn parse(text: &str) -> Result<Self, String> {
        let lines =
            text.lines().enumerate().map(|(nth, line)| (nth + 1, line.trim())).filter(|(_, line)| !line.is_empty());
        let key = |(nth, line): (usize, &str)| {
            let encoded = line.strip_prefix("whsec_").unwrap_or(line);
            let bytes = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded));
            match bytes {
                Ok(bytes) if bytes.len() >= SHORTEST => Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
                Ok(_) => Err(format!(
                    "line {nth} has less than {SHORTEST} bytes: make one with echo whsec_$(openssl rand -base64 32)"
                )),
                Err(_) => Err(format!("line {nth} is not base64, with or without whsec_ before it")),
            }
        };
        let keys = lines.map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err("it is empty".into()) } else { Ok(Self(keys)) }
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signed = self.0.iter().map(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{timestamp}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        });
        signed.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standard_s_own_example_and_each_secret_signs() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = br#"{"test": 2432232314}"#;
        let one = Secrets::parse(&format!("{secret}\n")).ok().unwrap();
        let signed = one.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = Secrets::parse(&format!("{secret}\n\n{}", &secret[6..])).ok().unwrap();
        assert_eq!(two.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body), format!("{signed} {signed}"));
    }

    #[test]
    fn a_secret_that_is_none_is_told_by_its_line_and_not_by_itself() {
        for (text, says) in
            [("", "empty"), ("whsec_!hunter2", "line 1 is not base64"), ("\nwhsec_aHVudGVyMg==", "line 2 has less")]
        {
            let why = Secrets::parse(text).err().unwrap();
            assert!(why.contains(says) && !why.contains("unter2") && !why.contains("aHVu"), "{why}");
        }
    }
}
