//! Texts of kernel traces.

/// The lines that contain none of `what`.
pub fn without(text: &[u8], what: &[&str]) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    let kept = text.lines().filter(|l| !what.iter().any(|w| l.contains(w)));
    kept.fold(String::new(), |all, l| all + l + "\n").into_bytes()
}

/// How many lines contain `what`.
pub fn lines_with(text: &[u8], what: &str) -> u64 {
    std::str::from_utf8(text).unwrap().lines().filter(|l| l.contains(what)).count() as u64
}
