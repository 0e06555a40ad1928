//! Texts that are compared without regard to case and width: compatibility forms made the same (NFKC),
//! and case folded. So `ＡＢＣ` is found by `abc`, and `下川` whatever charset it came in.

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;

/// The text as it is compared.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let normal = ComposingNormalizerBorrowed::new_nfkc().normalize(text);
    CaseMapper::new().fold_string(&normal).into_owned()
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn case_and_width_make_no_difference() {
        assert_eq!(fold("Hello"), "hello");
        assert_eq!(fold("ＡＢＣ"), "abc");
        assert_eq!(fold("ｶﾞ"), fold("ガ"));
        assert_eq!(fold("Straße"), fold("STRASSE"));
        assert_eq!(fold("下川"), "下川");
    }
}
