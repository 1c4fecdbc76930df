//! One row of the table: a command, and what it must answer in which version.

/// A command line and the documented answer to it.
pub(super) struct Step {
    line: &'static str,
    /// What stands on its standard input.
    pub(super) input: &'static str,
    /// What `$KUBE_EDITOR` is.
    pub(super) editor: &'static str,
    /// The first minor version that runs it at all.
    pub(super) since: u32,
    /// It is followed until a line matches this, and then ended.
    pub(super) until: Option<&'static str>,
    code: i32,
    stdout: Wording,
    stderr: Wording,
}

/// A text, and what older versions say instead: each up to, not including, its minor version, oldest first.
#[derive(Default)]
struct Wording {
    now: &'static str,
    before: Vec<(u32, &'static str)>,
}

impl Wording {
    fn of(&self, minor: u32, namespace: &str) -> String {
        let older = self.before.iter().find(|(until, _)| minor < *until).map(|(_, text)| *text);
        older.unwrap_or(self.now).replace("{ns}", namespace)
    }
}

/// What a client of one version must answer.
pub(super) struct Expected {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A command that must succeed and, until told otherwise, say nothing. Words are parted by spaces; single quotes
/// keep spaces; `{ns}` is the client's namespace.
pub(super) fn run(line: &'static str) -> Step {
    Step {
        line,
        input: "",
        editor: "false",
        since: 0,
        until: None,
        code: 0,
        stdout: Wording::default(),
        stderr: Wording::default(),
    }
}

impl Step {
    /// Gives it something to read.
    pub(super) fn reads(mut self, input: &'static str) -> Self {
        self.input = input;
        self
    }

    /// Gives it an editor.
    pub(super) fn edited_by(mut self, editor: &'static str) -> Self {
        self.editor = editor;
        self
    }

    /// Leaves it to versions from this one on.
    pub(super) fn since(mut self, minor: u32) -> Self {
        self.since = minor;
        self
    }

    /// Follows it until a line is this one, for what comes when it comes; the next step then finds it there.
    pub(super) fn until(mut self, line: &'static str) -> Self {
        self.until = Some(line);
        self
    }

    /// What stands on standard output. `{*}` matches anything within a line, a line `{lines}` any lines.
    pub(super) fn says(mut self, text: &'static str) -> Self {
        self.stdout.now = text;
        self
    }

    /// What stands there in versions before this one. Several are given oldest first.
    pub(super) fn says_before(mut self, minor: u32, text: &'static str) -> Self {
        self.stdout.before.push((minor, text));
        self
    }

    /// What stands on standard error, of a command that succeeds all the same.
    pub(super) fn warns(mut self, text: &'static str) -> Self {
        self.stderr.now = text;
        self
    }

    /// What stands there in versions before this one.
    pub(super) fn warns_before(mut self, minor: u32, text: &'static str) -> Self {
        self.stderr.before.push((minor, text));
        self
    }

    /// The error that it must end with, and the exit code 1.
    pub(super) fn fails(self, text: &'static str) -> Self {
        self.warns(text).exits(1)
    }

    /// The exit code.
    pub(super) fn exits(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// The words of the command.
    pub(super) fn words(&self, namespace: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for letter in self.line.chars() {
            match letter {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                letter => words.last_mut().expect("there must be a word").push(letter),
            }
        }
        words.iter().map(|word| word.replace("{ns}", namespace)).collect()
    }

    /// What a client of a minor version must answer.
    pub(super) fn expected(&self, minor: u32, namespace: &str) -> Expected {
        Expected {
            code: self.code,
            stdout: self.stdout.of(minor, namespace),
            stderr: self.stderr.of(minor, namespace),
        }
    }
}

/// Whether a text is what a pattern promises, to the last byte.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let wanted: Vec<&str> = pattern.split('\n').collect();
    let found: Vec<&str> = text.split('\n').collect();
    lines_match(&wanted, &found)
}

fn lines_match(wanted: &[&str], found: &[&str]) -> bool {
    match wanted.split_first() {
        None => found.is_empty(),
        Some((&"{lines}", rest)) => (0..=found.len()).any(|skipped| lines_match(rest, &found[skipped..])),
        Some((line, rest)) => found
            .split_first()
            .is_some_and(|(first, more)| line_matches(line, first) && lines_match(rest, more)),
    }
}

/// Whether one line is what a pattern promises.
pub(super) fn line_matches(wanted: &str, found: &str) -> bool {
    match wanted.split_once("{*}") {
        None => wanted == found,
        Some((start, rest)) => found.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| line_matches(rest, &tail[at..]))
        }),
    }
}

#[test]
fn patterns() {
    assert!(matches("a {*}s\n", "a 12s\n"));
    assert!(!matches("a {*}s\n", "a 12s"));
    assert!(!matches("a\n", "a \n"));
    assert!(matches("a\n{lines}\nb\n", "a\n1\n2\nb\n"));
    assert!(matches("a\n{lines}\nb\n", "a\nb\n"));
    assert!(!matches("a\n{lines}\nb\n", "a\n1\nc\n"));
    assert!(matches("", ""));
    assert!(!matches("", "\n"));
}

#[test]
fn words_and_versions() {
    let step = run("patch x -p '{\"a\": 1}' -n {ns}").says("new\n").says_before(22, "old\n");
    assert_eq!(step.words("here"), ["patch", "x", "-p", "{\"a\": 1}", "-n", "here"]);
    assert_eq!(step.expected(21, "").stdout, "old\n");
    assert_eq!(step.expected(22, "").stdout, "new\n");
}
