//! Command lines in documents.

use super::markdown::Code;

/// Languages of blocks that hold commands.
const SHELLS: [&str; 4] = ["sh", "bash", "shell", "console"];

/// The commands of a span or of a line in a shell block: their words, without variables set for
/// them, prompts and comments.
pub fn commands(code: &Code) -> Vec<Vec<String>> {
    if code.language.as_ref().is_some_and(|language| !SHELLS.contains(&&**language)) {
        return Vec::new();
    }
    let mut commands = vec![Vec::new()];
    for word in words(&code.text) {
        match &*word {
            "&&" | "||" | "|" | ";" | "&" | "(" | ")" => commands.push(Vec::new()),
            _ if word.starts_with('#') => break,
            _ => commands.last_mut().unwrap().push(word),
        }
    }
    let is_before = |word: &String| is_assignment(word) || ["$", "time", "exec"].contains(&&**word);
    let command = |words: Vec<String>| words.into_iter().skip_while(is_before).collect();
    commands.into_iter().map(command).filter(|words: &Vec<String>| !words.is_empty()).collect()
}

/// Names that a line only sets, as in `SHOP=http://127.0.0.1:8080; TOKEN=x`: variables of the shell.
pub fn variables(code: &Code) -> Vec<String> {
    let words = words(&code.text);
    let is_set = |word: &String| is_assignment(word) || [";", "export"].contains(&&**word);
    let set = words.iter().take_while(|word| !word.starts_with('#'));
    if code.language.is_none() || !set.clone().all(is_set) {
        return Vec::new();
    }
    set.filter_map(|word| word.split_once('=')).map(|(name, _)| name.to_owned()).collect()
}

fn is_assignment(word: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
    };
    word.split_once('=').is_some_and(|(name, _)| is_name(name))
}

/// Words of a line; quotes and substitutions hold them together, and `;` ends one.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quote, mut depth) = (None, 0_u32);
    for letter in line.chars() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            (letter, Some(_)) => word.push(letter),
            ('"' | '\'', None) => quote = Some(letter),
            ('(', None) if word.ends_with('$') || depth > 0 => {
                depth += 1;
                word.push(letter);
            }
            (')', None) if depth > 0 => {
                depth -= 1;
                word.push(letter);
            }
            (';', None) if depth == 0 => words.extend([std::mem::take(&mut word), ";".to_owned()]),
            (letter, None) if letter.is_whitespace() && depth == 0 => {
                words.push(std::mem::take(&mut word));
            }
            _ => word.push(letter),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Code {
        Code { line: 1, text: text.to_owned(), language: Some("sh".to_owned()) }
    }

    #[test]
    fn a_line_is_taken_apart_into_its_commands() {
        let text =
            "$ A_B=1 C='x y' cargo test 'a b' && orderlog events \"$(cat x | y)\" | jq . # z";
        let wanted = vec![
            vec!["cargo", "test", "a b"],
            vec!["orderlog", "events", "$(cat x | y)"],
            vec!["jq", "."],
        ];
        assert_eq!(commands(&line(text)), wanted);
        let other = Code { language: Some("text".to_owned()), ..line("orderlog is running") };
        assert!(commands(&other).is_empty());
    }

    #[test]
    fn a_line_that_only_sets_names_makes_variables() {
        assert_eq!(variables(&line("A_B=1; export C=$(ls -l)  # d")), ["A_B", "C"]);
        assert!(variables(&line("A_B=1 orderlog")).is_empty());
    }
}
