//! The parts of a Markdown document that the checks look at.

use std::collections::{BTreeMap, BTreeSet};

/// A document, taken apart. Lines count from 1.
#[derive(Debug, Default)]
pub struct Document {
    /// Below the root of the repository.
    pub path: String,
    pub text: String,
    pub code: Vec<Code>,
    /// Targets of links and images.
    pub links: Vec<(usize, String)>,
    /// What a link can point to inside the document.
    pub anchors: BTreeSet<String>,
    /// Names in `<!-- invented: a b -->`: a worked example may name files that do not exist.
    pub invented: BTreeSet<String>,
}

/// A code span, or a command or line of a fenced block.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    pub line: usize,
    pub text: String,
    /// The language of the block; `None` for a span.
    pub language: Option<String>,
}

impl Document {
    pub fn parse(path: &str, text: &str) -> Self {
        let mut document = Self { path: path.to_owned(), text: text.to_owned(), ..Self::default() };
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let mut block = Block::default();
        let mut headings = BTreeMap::new();
        while let Some((number, line)) = lines.next() {
            if let Some(fence) = Fence::opened_by(line) {
                document.take(&std::mem::take(&mut block));
                let inside = lines.by_ref().take_while(|(_, line)| !fence.is_closed_by(line));
                document.code.extend(fence.commands(inside));
                continue;
            }
            if line.trim().is_empty() {
                document.take(&std::mem::take(&mut block));
            } else {
                block.push(number, line);
            }
            if let Some(title) = heading(line) {
                document.anchors.insert(numbered(&mut headings, slug(title)));
            }
        }
        document.take(&block);
        document
    }

    /// Takes the spans, links and anchors from a block of text.
    fn take(&mut self, block: &Block) {
        let (spans, prose) = block.split();
        for (at, text) in spans {
            self.code.push(Code { line: block.line(at), text, language: None });
        }
        for (at, target) in links(&prose) {
            self.links.push((block.line(at), target));
        }
        for start in ["id=\"", "name=\""] {
            self.anchors.extend(between(&prose, start, '"').map(|(_, name)| name));
        }
        let invented = between(&prose, "<!-- invented:", '>').map(|(_, names)| names);
        for names in invented {
            self.invented.extend(names.trim_end_matches('-').split_whitespace().map(str::to_owned));
        }
    }

    /// Whether a worked example of this document invents the name, or a folder that it is in.
    pub fn invents(&self, name: &str) -> bool {
        let is_in = |folder: &String| {
            name.strip_prefix(folder.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.invented.iter().any(is_in)
    }
}

/// Lines without a blank one between them.
#[derive(Default)]
struct Block {
    first: usize,
    text: String,
}

impl Block {
    fn push(&mut self, number: usize, line: &str) {
        if self.text.is_empty() {
            self.first = number;
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn line(&self, at: usize) -> usize {
        self.first + self.text[..at].matches('\n').count()
    }

    /// The code spans with their places, and the text with blanks in their stead.
    fn split(&self) -> (Vec<(usize, String)>, String) {
        let (mut spans, mut prose) = (Vec::new(), String::new());
        let mut at = 0;
        while let Some(found) = self.text[at..].find('`') {
            let start = at + found;
            let ticks = self.text[start..].bytes().take_while(|byte| *byte == b'`').count();
            let inside = start + ticks;
            prose.push_str(&self.text[at..start]);
            let Some(length) = closing(&self.text[inside..], ticks) else {
                prose.push_str(&self.text[start..inside]);
                at = inside;
                continue;
            };
            let span = &self.text[inside..inside + length];
            spans.push((start, span.split_whitespace().collect::<Vec<_>>().join(" ")));
            at = inside + length + ticks;
            let blank = self.text[start..at].bytes();
            prose.extend(blank.map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        }
        prose.push_str(&self.text[at..]);
        (spans, prose)
    }
}

/// Where a run of exactly so many back-ticks begins.
fn closing(text: &str, ticks: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text[at..].find('`') {
        let start = at + found;
        let run = text[start..].bytes().take_while(|byte| *byte == b'`').count();
        if run == ticks {
            return Some(start);
        }
        at = start + run;
    }
    None
}

struct Fence {
    mark: String,
    language: String,
}

impl Fence {
    fn opened_by(line: &str) -> Option<Self> {
        let line = line.trim_start();
        let letter = line.chars().next().filter(|letter| "`~".contains(*letter))?;
        let mark: String = line.chars().take_while(|it| *it == letter).collect();
        let language = line[mark.len()..].trim().to_owned();
        (mark.len() >= 3 && !language.contains('`')).then_some(Self { mark, language })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let line = line.trim();
        line.starts_with(&self.mark) && line.chars().all(|letter| self.mark.starts_with(letter))
    }

    /// The lines, each with those that a backslash at its end continues.
    fn commands<'a>(&self, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<Code> {
        let mut commands: Vec<Code> = Vec::new();
        let mut goes_on = false;
        for (line, text) in lines {
            let continued = text.strip_suffix('\\');
            let text = continued.unwrap_or(text);
            if let Some(command) = commands.last_mut().filter(|_| goes_on) {
                command.text.push_str(text);
            } else {
                let language = Some(self.language.clone());
                commands.push(Code { line, text: text.to_owned(), language });
            }
            goes_on = continued.is_some();
        }
        commands
    }
}

fn heading(line: &str) -> Option<&str> {
    let title = line.trim_start_matches('#');
    let level = line.len() - title.len();
    title.strip_prefix(' ').filter(|_| (1..=6).contains(&level))
}

/// The anchor of a heading, as GitHub makes it.
fn slug(title: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
    let slug = title.trim().to_lowercase();
    slug.chars().filter(kept).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// A slug that is there already gets a number.
fn numbered(seen: &mut BTreeMap<String, usize>, slug: String) -> String {
    let times = seen.entry(slug.clone()).or_default();
    *times += 1;
    if *times == 1 { slug } else { format!("{slug}-{}", *times - 1) }
}

/// Targets of `[text](target)`, `[name]: target`, `href` and `src`, with their places.
fn links(prose: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = between(prose, "](", ')').collect();
    for start in ["href=\"", "src=\""] {
        found.extend(between(prose, start, '"'));
    }
    let mut at = 0;
    for line in prose.split_inclusive('\n') {
        if let Some((_, target)) = line.strip_prefix('[').and_then(|line| line.split_once("]: ")) {
            found.push((at, target.to_owned()));
        }
        at += line.len();
    }
    // A title may follow the target.
    let target = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
    found.into_iter().map(|(at, text)| (at, target(text))).collect()
}

/// What stands between a start and the next end, with its place.
fn between<'a>(
    text: &'a str,
    start: &'a str,
    end: char,
) -> impl Iterator<Item = (usize, String)> + 'a {
    text.match_indices(start).filter_map(move |(at, _)| {
        let inside = &text[at + start.len()..];
        Some((at, inside[..inside.find(end)?].to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_found_with_its_line() {
        let text =
            "a `b` and `` c ` d ``\nwrapped `e\nf` end\n\n```sh\nls \\\n  -l # g\n```\n`h`\n";
        let found = Document::parse("x.md", text).code;
        let code = |line, text: &str, language: Option<&str>| Code {
            line,
            text: text.to_owned(),
            language: language.map(str::to_owned),
        };
        let wanted = [
            code(1, "b", None),
            code(1, "c ` d", None),
            code(2, "e f", None),
            code(6, "ls   -l # g", Some("sh")),
            code(9, "h", None),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn links_are_found_outside_code_only() {
        let text = "[a](b.md#c \"title\") `[x](y)` [`d`](e.rs)\n![f](g.png)\n[h]: i.md\n\
                    <a href=\"j.md\">\n\n```\n[k](l)\n```\n";
        let links = Document::parse("x.md", text).links;
        let links: Vec<(usize, &str)> = links.iter().map(|(line, it)| (*line, &**it)).collect();
        assert_eq!(links, [(1, "b.md#c"), (1, "e.rs"), (2, "g.png"), (4, "j.md"), (3, "i.md")]);
    }

    #[test]
    fn headings_and_names_are_anchors() {
        let text = "# The `log`: a file, *or* two\n## Same\n## Same\n```\n# no\n```\n#no\n<a id=\"x\"></a>\n";
        let anchors = Document::parse("x.md", text).anchors;
        let wanted = ["same", "same-1", "the-log-a-file-or-two", "x"];
        assert_eq!(anchors, wanted.map(str::to_owned).into());
    }

    #[test]
    fn a_document_names_what_it_invents() {
        let document = Document::parse("x.md", "<!-- invented: a/b.rs\nc/d -->\n");
        for (name, invented) in [("a/b.rs", true), ("c/d/e.rs", true), ("c/dd", false)] {
            assert_eq!(document.invents(name), invented, "{name}");
        }
    }
}
