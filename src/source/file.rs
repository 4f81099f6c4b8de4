//! Lines from files and from standard input, one JSON event each: plain, gzip or zstd, told by their first bytes.
//!
//! A file is a topic with one partition, and the line's number (from 1) is its offset. A topic written down by `kcat -J` is
//! recognised by its first line; its records keep their own topic, partition, offset and time. Memory does not depend on the
//! file: a line longer than [`LINE_BYTES_MAX`] is delivered as its beginning and marked with its length, and the next line is
//! read as if nothing had been.
//!
//! Several files are read in turn, a batch from each, so that none holds the others' windows open for long. Nothing is merged
//! by time: lateness is judged in each partition by itself. Standard input and pipes are read by threads of their own: what has
//! come is handed over at once, however little it is, and nobody waits for what has not.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::{Batch, Error, Message, Outbox, Place, Record, Sent};
use crate::decode::kcat::unwrap_dump;
use crate::domain::Time;

/// A longer line is not kept whole.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// What is kept of it, so that a person can see what it was.
const OVERSIZE_KEPT_BYTES: usize = 4 << 10;
/// A record of a dump is JSON within JSON, which may double it.
const DUMP_LINE_BYTES_MAX: usize = 2 * LINE_BYTES_MAX + (64 << 10);
const READ_BUFFER_BYTES: usize = 256 << 10;
const BATCH_RECORDS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Between two attempts to send while the channel is full.
const ROOM_AGAIN: Duration = Duration::from_millis(1);
const STOP_SECONDS_MAX: u64 = 10;
/// Records of a pipe that wait to be taken.
const PIPED_MAX: usize = 1_024;
/// How long the first record of a batch is waited for, so that the other files have their turn.
const PIPE_PATIENCE: Duration = Duration::from_millis(20);

/// How fast lines are handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Pace {
    #[default]
    AsFastAsTaken,
    /// Records in a second, over all files.
    PerSecond(u32),
    /// So many times as fast as the records' own times say; records without a time do not wait.
    Recorded(f64),
}

/// Reads files on a thread of its own.
pub struct FileSource;

/// The running source. Dropped, it stops without being waited for.
pub struct Handle {
    stop: Arc<AtomicBool>,
    done: Receiver<()>,
}

/// One record of a file, for those who read it themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// The dump's own, else the file's name.
    pub topic: Arc<str>,
    pub partition: i32,
    /// The dump's own, else the number of the line, from 1.
    pub offset: i64,
    /// None where the file knows none.
    pub time: Option<Time>,
    pub value: Vec<u8>,
    /// Bytes of the whole line where it was too long; `value` is then its beginning. 0 = whole.
    pub oversize: u64,
}

/// The records of one file, one after the other. Blocks as its file does.
pub struct FileReader {
    input: Box<dyn BufRead + Send>,
    name: Arc<str>,
    line: Vec<u8>,
    lines_read: i64,
    /// None until the first line was seen.
    is_dump: Option<bool>,
    /// Names seen in a dump, so that they are kept once.
    names: HashMap<String, Arc<str>>,
    bytes_read: Arc<AtomicU64>,
    bytes_total: Option<u64>,
}

/// Counts what is read below the decompression, for a progress bar.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

/// Where records come from.
enum Input {
    File(FileReader),
    /// Standard input or a pipe, read by a thread that may wait. What comes of it, or the line that could not be read and why.
    Pipe(Receiver<Result<FileRecord, (i64, io::Error)>>),
}

/// What an input has to give.
enum Given {
    Record(FileRecord),
    /// Nothing has come yet.
    Nothing,
    End,
    Failed {
        line: i64,
        why: io::Error,
    },
}

/// The thread that reads.
struct Reader {
    /// None: ended.
    files: Vec<Option<Input>>,
    topics: Vec<Arc<str>>,
    /// Partitions of dumps that have been announced, with the file that brought them.
    known: HashMap<(u16, i32), usize>,
    outbox: Outbox,
    stop: Arc<AtomicBool>,
    pace: Pace,
    /// When the pace was begun, and the record time that stands for it.
    began: Option<(Instant, Time)>,
    handed_over: u64,
}

// === impl FileSource ===

impl FileSource {
    /// Begins to read; `-` is standard input. The topics are the paths as given, in their order.
    ///
    /// # Errors
    /// No files, one that cannot be opened, no thread.
    pub fn start(paths: Vec<PathBuf>, out: SyncSender<Message>, pace: Pace) -> Result<Handle, Error> {
        if paths.is_empty() {
            return Err(Error::Nothing("file"));
        }
        let files = paths.iter().map(|path| Input::open(path).map(Some)).collect::<Result<Vec<_>, Error>>()?;
        let topics = paths.iter().map(|path| path.display().to_string().into()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (done_tx, done) = sync_channel(1);
        let outbox = Outbox::new(out);
        let reader = Reader { files, topics, known: HashMap::new(), outbox, stop: stop.clone(), pace, began: None, handed_over: 0 };
        let run = move || {
            reader.run();
            let _ = done_tx.send(());
        };
        std::thread::Builder::new().name("file-reader".into()).spawn(run).map_err(Error::Thread)?;
        Ok(Handle { stop, done })
    }
}

// === impl Handle ===

impl Handle {
    /// Ends reading where it is.
    ///
    /// # Errors
    /// The thread waits for standard input or a slow disk; it is abandoned.
    pub fn stop(self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Release);
        self.done.recv_timeout(Duration::from_secs(STOP_SECONDS_MAX)).map_err(|_| Error::Abandoned(STOP_SECONDS_MAX))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

// === impl Input ===

impl Input {
    fn open(path: &Path) -> Result<Input, Error> {
        let failed = |source| Error::File { path: path.display().to_string(), source };
        let is_pipe = path == Path::new("-") || std::fs::metadata(path).map_err(failed)?.file_type().is_fifo();
        if !is_pipe {
            return FileReader::open(path).map(Input::File).map_err(failed);
        }
        let (to, pipe) = sync_channel(PIPED_MAX);
        let path = path.to_owned();
        // Nobody waits for this thread: only its other end can wake it.
        let pump = move || {
            let mut file = match FileReader::open(&path) {
                Ok(file) => file,
                Err(why) => return drop(to.send(Err((1, why)))),
            };
            while let Some(record) = file.next_record().map_err(|why| (file.lines_read + 1, why)).transpose() {
                let is_last = record.is_err();
                if to.send(record).is_err() || is_last {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("pipe-reader".into()).spawn(pump).map_err(Error::Thread)?;
        Ok(Input::Pipe(pipe))
    }

    /// `may_wait`: a little, for the first of a batch.
    fn next(&mut self, may_wait: bool) -> Given {
        match self {
            Input::File(file) => match file.next_record() {
                Ok(Some(record)) => Given::Record(record),
                Ok(None) => Given::End,
                Err(why) => Given::Failed { line: file.lines_read + 1, why },
            },
            Input::Pipe(pipe) => {
                let given = match may_wait {
                    true => pipe.recv_timeout(PIPE_PATIENCE).map_err(|e| e == RecvTimeoutError::Timeout),
                    false => pipe.try_recv().map_err(|e| e == TryRecvError::Empty),
                };
                match given {
                    Ok(Ok(record)) => Given::Record(record),
                    Ok(Err((line, why))) => Given::Failed { line, why },
                    Err(true) => Given::Nothing,
                    Err(false) => Given::End,
                }
            }
        }
    }
}

// === impl Reader ===

impl Reader {
    fn run(mut self) {
        let high = |input: &Option<Input>| if matches!(input, Some(Input::File(_))) { Place::UNTIL_ENDED } else { -1 };
        let place = |(topic, input): (usize, &Option<Input>)| Place { topic: topic as u16, partition: 0, next: 1, high: high(input) };
        let places = self.files.iter().enumerate().map(place).collect();
        self.outbox.push(Message::Assigned(places));
        while self.send() && self.files.iter().any(Option::is_some) {
            for index in 0..self.files.len() {
                if self.files[index].is_some() && !(self.read_from(index) && self.send()) {
                    return;
                }
            }
        }
    }

    /// Reads one batch from a file. False: stopped.
    fn read_from(&mut self, index: usize) -> bool {
        let mut batch = Batch::default();
        let mut ended = None;
        while batch.records.len() < self.batch_records_max() && batch.bytes.len() < BATCH_BYTES_MAX {
            let Some(file) = &mut self.files[index] else { break };
            match file.next(batch.records.is_empty()) {
                Given::Record(record) => {
                    let Some(topic) = self.topic_of(index, &record) else { continue };
                    if !self.keep_pace(record.time, &mut batch) {
                        return false;
                    }
                    let value = Some(batch.push(&record.value));
                    let FileRecord { partition, offset, time, oversize, .. } = record;
                    batch.records.push(Record { topic, partition, offset, time, key: None, value, headers: None, oversize });
                }
                Given::Nothing => break,
                Given::End => {
                    ended = Some(None);
                    break;
                }
                Given::Failed { line, why } => {
                    ended = Some(Some((line, why)));
                    break;
                }
            }
        }
        self.hand_over(batch);
        if let Some(failed) = ended {
            if let Some((line, why)) = failed {
                let words = format!("{} cannot be read beyond line {}: {why}", self.topics[index], line - 1);
                self.outbox.push(Message::Gap { topic: index as u16, partition: 0, from: line, to: line, words });
            }
            self.files[index] = None;
            self.outbox.push(Message::Ended { topic: index as u16, partition: 0 });
            let mut dumped: Vec<_> = self.known.iter().filter(|(_, file)| **file == index).map(|(key, _)| *key).collect();
            dumped.sort_unstable();
            dumped.into_iter().for_each(|(topic, partition)| self.outbox.push(Message::Ended { topic, partition }));
        }
        true
    }

    fn hand_over(&mut self, batch: Batch) {
        if !batch.is_empty() {
            self.outbox.push(Message::Batch(batch));
        }
    }

    /// The index of the record's topic, announced if it is new. None: there are more topics than a dump can sensibly have.
    fn topic_of(&mut self, file: usize, record: &FileRecord) -> Option<u16> {
        if self.topics[file] == record.topic {
            return u16::try_from(file).ok();
        }
        let topic = match self.topics.iter().position(|t| *t == record.topic) {
            Some(at) => u16::try_from(at).ok()?,
            None => {
                let topic = u16::try_from(self.topics.len()).ok()?;
                self.topics.push(record.topic.clone());
                self.outbox.push(Message::Named { topic, name: record.topic.to_string() });
                topic
            }
        };
        if self.known.insert((topic, record.partition), file).is_none() {
            self.outbox.push(Message::Assigned(vec![Place { topic, partition: record.partition, next: record.offset, high: -1 }]));
        }
        Some(topic)
    }

    /// With a pace, little is handed over at once.
    fn batch_records_max(&self) -> usize {
        match self.pace {
            Pace::AsFastAsTaken => BATCH_RECORDS_MAX,
            Pace::PerSecond(n) => (n as usize / 50).clamp(1, BATCH_RECORDS_MAX),
            Pace::Recorded(_) => 100,
        }
    }

    /// Waits until the record's turn; what was read before it goes out first. False: stopped.
    fn keep_pace(&mut self, time: Option<Time>, batch: &mut Batch) -> bool {
        let (began, first) = *self.began.get_or_insert((Instant::now(), time.unwrap_or_default()));
        let after = match (self.pace, time) {
            (Pace::PerSecond(n), _) => Duration::from_secs_f64(self.handed_over as f64 / f64::from(n.max(1))),
            (Pace::Recorded(speed), Some(time)) if speed > 0.0 && time.since_ms(first) > 0 => {
                Duration::try_from_secs_f64(time.since_ms(first) as f64 / 1e3 / speed).unwrap_or_default()
            }
            (Pace::Recorded(_) | Pace::AsFastAsTaken, _) => Duration::ZERO,
        };
        self.handed_over += 1;
        while began.elapsed() < after {
            let ready = std::mem::take(batch);
            self.hand_over(ready);
            if !self.send() {
                return false;
            }
            std::thread::sleep(after.saturating_sub(began.elapsed()).min(Duration::from_millis(50)));
        }
        true
    }

    /// Sends all that waits. False: stopped, or nobody listens.
    fn send(&mut self) -> bool {
        loop {
            if self.stop.load(Ordering::Acquire) {
                return false;
            }
            match self.outbox.send() {
                Sent::All => return true,
                Sent::Gone => return false,
                Sent::Waits => std::thread::sleep(ROOM_AGAIN),
            }
        }
    }
}

// === impl FileReader ===

impl FileReader {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(path: &Path) -> io::Result<FileReader> {
        if path == Path::new("-") {
            return FileReader::over(io::stdin(), "-", None);
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        let total = metadata.is_file().then_some(metadata.len());
        FileReader::over(file, &path.display().to_string(), total)
    }

    /// Reads any bytes as the file of that name.
    ///
    /// # Errors
    /// The first bytes cannot be read.
    pub fn over(bytes: impl Read + Send + 'static, name: &str, bytes_total: Option<u64>) -> io::Result<FileReader> {
        let bytes_read = Arc::new(AtomicU64::new(0));
        let mut counted = Counted { inner: bytes, count: bytes_read.clone() };
        let mut magic = Vec::new();
        counted.by_ref().take(4).read_to_end(&mut magic)?;
        let whole = BufReader::with_capacity(READ_BUFFER_BYTES, Cursor::new(magic.clone()).chain(counted));
        let input: Box<dyn BufRead + Send> = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(whole))),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, zstd::Decoder::with_buffer(whole)?)),
            _ => Box::new(whole),
        };
        let name: Arc<str> = name.into();
        Ok(FileReader { input, name, line: Vec::new(), lines_read: 0, is_dump: None, names: HashMap::new(), bytes_read, bytes_total })
    }

    /// Bytes read of the file as it lies there, compressed or not.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// None for standard input and pipes.
    pub fn bytes_total(&self) -> Option<u64> {
        self.bytes_total
    }

    /// Whether the file is a dump of a topic; known after the first record.
    pub fn is_dump(&self) -> bool {
        self.is_dump == Some(true)
    }

    /// The next record, past empty lines; None at the end.
    ///
    /// # Errors
    /// The file cannot be read further, or is damaged.
    pub fn next_record(&mut self) -> io::Result<Option<FileRecord>> {
        loop {
            let bound = if self.is_dump == Some(false) { LINE_BYTES_MAX } else { DUMP_LINE_BYTES_MAX };
            let Some(length) = read_line(&mut self.input, &mut self.line, bound)? else { return Ok(None) };
            self.lines_read += 1;
            if self.line.iter().all(u8::is_ascii_whitespace) && length == self.line.len() as u64 {
                continue;
            }
            if self.is_dump != Some(false) {
                let dumped = unwrap_dump(&self.line);
                self.is_dump.get_or_insert(dumped.is_some());
                if let Some(dumped) = dumped {
                    let topic = match self.names.get(&dumped.topic) {
                        Some(name) => name.clone(),
                        None => {
                            let name: Arc<str> = dumped.topic.as_str().into();
                            self.names.insert(dumped.topic, name.clone());
                            name
                        }
                    };
                    let (partition, offset, time) = (dumped.partition, dumped.offset, dumped.record_time);
                    let (value, oversize) = bounded(dumped.payload, None);
                    return Ok(Some(FileRecord { topic, partition, offset, time, value, oversize }));
                }
            }
            let whole = (length > self.line.len() as u64).then_some(length);
            let (value, oversize) = bounded(self.line.clone(), whole);
            return Ok(Some(FileRecord { topic: self.name.clone(), partition: 0, offset: self.lines_read, time: None, value, oversize }));
        }
    }
}

impl Iterator for FileReader {
    type Item = io::Result<FileRecord>;

    fn next(&mut self) -> Option<io::Result<FileRecord>> {
        self.next_record().transpose()
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

// === helpers ===

/// Only the beginning of what is too large, and its whole length (0 where it is not).
fn bounded(mut value: Vec<u8>, whole: Option<u64>) -> (Vec<u8>, u64) {
    let length = whole.unwrap_or(value.len() as u64);
    if length <= LINE_BYTES_MAX as u64 {
        return (value, 0);
    }
    value.truncate(OVERSIZE_KEPT_BYTES);
    value.shrink_to_fit();
    (value, length)
}

/// Reads a line without its end into `line`, of which little more than `bound` bytes are kept. The line's whole length; None at
/// the end of the input.
fn read_line(mut input: &mut dyn BufRead, line: &mut Vec<u8>, bound: usize) -> io::Result<Option<u64>> {
    line.clear();
    // Room for the line's end, `\r\n`.
    let limit = bound as u64 + 2;
    if (&mut input).take(limit).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if line.len() as u64 == limit {
        let rest = input.skip_until(b'\n')? as u64;
        return Ok(Some(limit + rest.saturating_sub(1)));
    }
    Ok(Some(line.len() as u64))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::decode::kcat::wrap_dump;

    fn read(bytes: Vec<u8>) -> Vec<FileRecord> {
        FileReader::over(Cursor::new(bytes), "f", None).unwrap().map(Result::unwrap).collect()
    }

    fn short(records: &[FileRecord]) -> Vec<(i64, &[u8])> {
        records.iter().map(|r| (r.offset, r.value.as_slice())).collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    }

    #[test]
    fn lines_are_numbered_and_compression_is_told_by_the_first_bytes() {
        let plain = b"a\r\n\n  \nb\nc".to_vec();
        let expected = [(1, &b"a"[..]), (4, b"b"), (5, b"c")];
        assert_eq!(short(&read(plain.clone())), expected);
        assert_eq!(short(&read(zstd::encode_all(&plain[..], 1).unwrap())), expected);
        let mut twice = gzip(&plain[..4]);
        twice.extend(gzip(&plain[4..]));
        assert_eq!(short(&read(twice)), expected, "gzip in several members");
        for tiny in [&b""[..], b"\n", b"x", b"\x1f"] {
            read(tiny.to_vec());
        }
    }

    #[test]
    fn a_line_too_long_is_marked_and_the_next_is_read() {
        for long in [LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 5 * LINE_BYTES_MAX] {
            // As the first line, which may be a dump's, and after another.
            for first in [&b""[..], b"{}\n"] {
                let mut bytes = first.to_vec();
                bytes.resize(first.len() + long, b'x');
                bytes.extend(b"\n{\"next\":1}\n");
                let records = read(gzip(&bytes));
                let [.., large, next] = records.as_slice() else { panic!("{}", records.len()) };
                assert_eq!(next.value, b"{\"next\":1}");
                if long > LINE_BYTES_MAX {
                    assert_eq!((large.oversize, large.value.len()), (long as u64, OVERSIZE_KEPT_BYTES));
                } else {
                    assert_eq!((large.oversize, large.value.len()), (0, long));
                }
            }
        }
    }

    #[test]
    fn a_gigabyte_without_a_line_end_costs_no_memory() {
        let endless = io::repeat(b'[').take(1 << 30).chain(&b"\nnext\n"[..]);
        let mut reader = FileReader::over(endless, "f", None).unwrap();
        let large = reader.next_record().unwrap().unwrap();
        assert_eq!((large.oversize, large.value.len()), (1 << 30, OVERSIZE_KEPT_BYTES));
        assert!(reader.line.capacity() < 2 * DUMP_LINE_BYTES_MAX);
        assert_eq!(reader.next_record().unwrap().unwrap().value, b"next");
        assert_eq!(reader.bytes_read(), (1 << 30) + 6);
    }

    #[test]
    fn a_dump_yields_its_own_places() {
        let mut text = String::new();
        for (partition, offset) in [(0, 7), (2, 9), (0, 8)] {
            text += &wrap_dump("events", partition, offset, Some(Time(1_000 + offset)), None, Some(b"{}"));
            text.push('\n');
        }
        text += "not a record\n";
        let records = read(text.into_bytes());
        let places: Vec<_> = records.iter().map(|r| (&*r.topic, r.partition, r.offset, r.time)).collect();
        let expected =
            [("events", 0, 7, Some(Time(1_007))), ("events", 2, 9, Some(Time(1_009))), ("events", 0, 8, Some(Time(1_008))), ("f", 0, 4, None)];
        assert_eq!(places, expected);
    }

    #[test]
    fn files_are_announced_read_in_turn_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, dump, broken) = (folder.path().join("a.ndjson"), folder.path().join("b.json.gz"), folder.path().join("c.gz"));
        std::fs::write(&plain, "1\n2\n").unwrap();
        std::fs::write(&dump, gzip((wrap_dump("t", 3, 40, None, None, Some(b"x")) + "\n").as_bytes())).unwrap();
        let mut cut = gzip(&b"line\n".repeat(100_000));
        cut.truncate(cut.len() / 2);
        std::fs::write(&broken, cut).unwrap();
        let (out, messages) = sync_channel(1);
        let handle = FileSource::start(vec![plain, dump, broken], out, Pace::AsFastAsTaken).unwrap();
        let messages: Vec<_> = messages.iter().collect();
        handle.stop().unwrap();
        let Message::Assigned(places) = &messages[0] else { panic!("{:?}", messages[0]) };
        assert_eq!(places.len(), 3);
        assert!(messages.contains(&Message::Named { topic: 3, name: "t".into() }));
        assert!(messages.contains(&Message::Assigned(vec![Place { topic: 3, partition: 3, next: 40, high: -1 }])));
        let ended: Vec<_> =
            messages.iter().filter_map(|m| if let Message::Ended { topic, partition } = m { Some((*topic, *partition)) } else { None }).collect();
        assert_eq!(ended.len(), 4, "{ended:?}");
        assert!(ended.contains(&(3, 3)));
        assert!(messages.iter().any(|m| matches!(m, Message::Gap { topic: 2, .. })), "the damaged file says so");
    }

    #[test]
    fn a_missing_file_is_named() {
        let (out, _messages) = sync_channel(1);
        let why = FileSource::start(vec!["/nowhere/x".into()], out, Pace::AsFastAsTaken).err().unwrap();
        assert_eq!(why.to_string(), "cannot read /nowhere/x");
    }

    #[test]
    fn a_source_that_nobody_listens_to_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "1\n".repeat(10_000)).unwrap();
        let (out, messages) = sync_channel(1);
        let handle = FileSource::start(vec![path.clone()], out, Pace::AsFastAsTaken).unwrap();
        drop(messages);
        handle.stop().unwrap();
        let (out, _full) = sync_channel(1);
        FileSource::start(vec![path], out, Pace::PerSecond(1)).unwrap().stop().unwrap();
    }
}
