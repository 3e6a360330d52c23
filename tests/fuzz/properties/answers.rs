//! What somebody gets who asks for a page.

/// What came back, or nothing: an answer of ours, whose pages nobody can turn
/// against whoever looks at them.
pub fn answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if text.is_empty() {
        return;
    }
    assert!(text.starts_with("HTTP/1."), "{text:?}");
    let status = text.get(9..12).unwrap_or_default();
    let known = ["200", "400", "404", "405", "408", "414", "431", "503"];
    assert!(known.contains(&status), "{text:?}");
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let head = head.to_ascii_lowercase();
    let ours = ["200", "404", "405", "503"].contains(&status);
    for header in ["x-content-type-options: nosniff", "default-src 'none'"] {
        assert!(!ours || head.contains(header), "{head}");
    }
}

/// `/state` is JSON, and `/metrics` lines of which each is a comment or a
/// value of ours, whatever others have written into the table.
pub fn pages(state: &str, metrics: &str) {
    let json: serde_json::Value = serde_json::from_str(state).expect("JSON");
    assert!(json.is_object());
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for line in metrics.lines() {
        let ours = line.starts_with("leasewrap_") || line.starts_with("# ");
        assert!(ours && !line.contains(char::is_control), "{line:?}");
    }
}
