//! Certificates of a test's own, made by `openssl`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Place;

/// `openssl` with these words, which must succeed.
pub(crate) fn openssl(place: &Place, words: &[&str]) {
    let made = Command::new("openssl").args(words).current_dir(place.path("")).output();
    let made = made.unwrap_or_else(|why| panic!("openssl: {why}; .ci/run installs it"));
    assert!(made.status.success(), "{words:?}: {}", String::from_utf8_lossy(&made.stderr));
}

/// An authority: `NAME.pem` and `NAME.key`.
pub(crate) fn authority(place: &Place, name: &str) {
    let (key, cert, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj";
    let words: Vec<_> = words.split(' ').chain([&*subject, "-keyout", &key, "-out", &cert]).collect();
    openssl(place, &words);
}

/// A certificate `FILE.pem` with its key `FILE.key`, signed by an authority: for a common name, and other names as `DNS:x,IP:y`. It is
/// valid for so many days; for less than none it has expired.
pub(crate) fn certificate(place: &Place, ca: &str, file: &str, name: &str, others: &str, days: &str) -> PathBuf {
    let [key, csr, cert, san] = ["key", "csr", "pem", "san"].map(|end| format!("{file}.{end}"));
    let subject = format!("/CN={name}");
    let words = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj";
    let words: Vec<_> = words.split(' ').chain([&*subject, "-keyout", &key, "-out", &csr]).collect();
    openssl(place, &words);
    let extensions = if others.is_empty() { String::new() } else { format!("subjectAltName={others}") };
    place.write(&san, format!("basicConstraints=CA:FALSE\n{extensions}"));
    let (ca_cert, ca_key) = (format!("{ca}.pem"), format!("{ca}.key"));
    let words = ["x509", "-req", "-in", &csr, "-CA", &ca_cert, "-CAkey", &ca_key, "-CAcreateserial", "-days", days];
    openssl(place, &[&words[..], &["-extfile", &san, "-out", &cert]].concat());
    place.path(&cert)
}

/// `python3` with a script, in the directory of the test; it must succeed. The answer is what it prints.
pub(crate) fn python(place: &Place, script: &str, words: &[&str]) -> String {
    let mut command = Command::new("python3");
    command.arg("-").args(words).current_dir(place.path(""));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{told}{}", String::from_utf8_lossy(&ended.stderr));
    told
}
