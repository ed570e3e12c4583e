//! What the keys of NATS, sources' and stores', may be.

/// What is wrong with the addresses of servers, if anything, as the end of a sentence that begins with the key. No secret is in it.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    let is_address = |url: &str| {
        let host = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '/', ' ']))
    };
    if url.split(',').all(|url| is_address(url.trim())) {
        return Ok(());
    }
    Err(format!(
        "is {:?}, but must be nats://HOST:PORT or tls://HOST:PORT, several with commas between them; secrets go into credentials_file",
        url.split(',').map(|url| url.rsplit('@').next().unwrap_or_default()).collect::<Vec<_>>().join(",")
    ))
}

/// Whether a stream or a consumer can be called that.
pub(super) fn is_name(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}
