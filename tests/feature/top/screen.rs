//! As much of a terminal as tells what a program shows on it.

/// What stands on the screen.
pub(super) struct Screen {
    width: usize,
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    pub(super) is_alternate: bool,
    pub(super) is_cursor_seen: bool,
    /// The lines from before the alternate screen.
    main: Option<(Vec<Vec<char>>, usize, usize)>,
    /// What came and is not whole yet.
    pending: Vec<u8>,
}

impl Screen {
    pub(super) fn new(width: usize, height: usize) -> Self {
        let cells = vec![vec![' '; width]; height];
        let (is_alternate, is_cursor_seen) = (false, true);
        Self { width, cells, row: 0, column: 0, is_alternate, is_cursor_seen, main: None, pending: vec![] }
    }

    pub(super) fn text(&self) -> String {
        let lines = self.cells.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let whole = match std::str::from_utf8(&pending) {
            Ok(text) => text,
            Err(why) => std::str::from_utf8(&pending[..why.valid_up_to()]).unwrap_or_default(),
        };
        let (mut at, end) = (0, whole.len());
        while let Some(c) = whole[at..].chars().next() {
            match c {
                '\x1b' => match self.sequence(&whole[at..]) {
                    Some(length) => at += length,
                    None => break,
                },
                '\n' => self.line_feed(),
                '\r' => self.column = 0,
                c if c < ' ' => {}
                c => self.print(c),
            }
            if c != '\x1b' {
                at += c.len_utf8();
            }
        }
        self.pending = pending[at.min(end)..].to_vec();
    }

    fn print(&mut self, c: char) {
        if self.column == self.width {
            self.column = 0;
            self.line_feed();
        }
        self.cells[self.row][self.column] = c;
        self.column += 1;
    }

    fn line_feed(&mut self) {
        if self.row + 1 == self.cells.len() {
            self.cells.remove(0);
            self.cells.push(vec![' '; self.width]);
        } else {
            self.row += 1;
        }
    }

    /// Obeys the sequence that the text begins with; how long it is. `None` where it is not whole yet.
    fn sequence(&mut self, text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        match bytes.get(1)? {
            b'[' => {}
            // Of the others none shows anything.
            b'(' | b')' => return bytes.get(2).map(|_| 3),
            _ => return Some(2),
        }
        let length = bytes[2..].iter().position(|byte| (0x40..0x7f).contains(byte))? + 3;
        let words = &text[2..length - 1];
        let number = |nth: usize, default: usize| {
            words.trim_start_matches('?').split(';').nth(nth).and_then(|n| n.parse().ok()).unwrap_or(default)
        };
        match (bytes[length - 1], words) {
            (b'H', _) => (self.row, self.column) = (number(0, 1) - 1, number(1, 1) - 1),
            (b'A', _) => self.row -= number(0, 1),
            (b'B', _) => self.row += number(0, 1),
            (b'C', _) => self.column += number(0, 1),
            (b'D', _) => self.column -= number(0, 1),
            (b'G', _) => self.column = number(0, 1) - 1,
            (b'J', _) => self.cells.iter_mut().for_each(|line| line.fill(' ')),
            (b'K', _) => self.cells[self.row][self.column..].fill(' '),
            (b'h', "?25") => self.is_cursor_seen = true,
            (b'l', "?25") => self.is_cursor_seen = false,
            (b'h', "?1049") => {
                self.is_alternate = true;
                let blank = vec![vec![' '; self.width]; self.cells.len()];
                self.main = Some((std::mem::replace(&mut self.cells, blank), self.row, self.column));
            }
            (b'l', "?1049") => {
                self.is_alternate = false;
                if let Some((cells, row, column)) = self.main.take() {
                    (self.cells, self.row, self.column) = (cells, row, column);
                }
            }
            // Colours and what keys mean.
            _ => {}
        }
        Some(length)
    }
}
