//! Splits text into words: lower case, without accents, letters and digits only.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// Most characters of a word. Longer words are cut, in products and in questions alike.
pub const MAX_WORD: usize = 40;

/// The words of a text, in order.
pub fn words(text: &str) -> Vec<String> {
    let plain: String = text.nfkd().filter(|letter| !is_combining_mark(*letter)).collect();
    plain
        .to_lowercase()
        // Apostrophes join: "readers'" and "Gulliver's" are one word each.
        .replace(['\'', '\u{2019}'], "")
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().take(MAX_WORD).collect())
        .collect()
}

/// Whether `word` is one that [`words`] can return. A cursor may contain any text.
pub fn is_word(word: &str) -> bool {
    words(word) == [word]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_have_neither_marks_nor_case() {
        assert_eq!(words("Zoë's  Café–Guide, 2nd ed."), ["zoes", "cafe", "guide", "2nd", "ed"]);
        assert_eq!(words("ＦＵＬＬ ﬁn 東京"), ["full", "fin", "東京"]);
        assert!(words(" -'- \u{301}").is_empty());
        assert_eq!(words(&"x".repeat(90))[0].len(), MAX_WORD);
    }

    proptest! {
        #[test]
        fn whatever_is_given_is_a_word(text: String) {
            for word in words(&text) {
                assert!(is_word(&word), "{word} of {text}");
            }
        }
    }

    #[test]
    fn only_words_are_words() {
        assert!(is_word("cafe") && is_word("東京") && is_word("2nd"));
        for text in ["", "Cafe", "a b", "a'b", "café", "a:*", &"x".repeat(41)] {
            assert!(!is_word(text), "{text}");
        }
    }
}
