//! The file port: the few things the journal asks of a disk. Synchronous, so that a simulated file system can stand in.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The folder for what is set aside, inside the journal's directory.
pub(super) const DAMAGED: &str = "damaged";
/// How often, and how far apart, the lock is asked for before another process counts as its holder.
const LOCK_TRIES: u32 = 20;
const LOCK_AGAIN: std::time::Duration = std::time::Duration::from_millis(10);
/// The file whose lock says that a process has the directory.
const LOCK: &str = "journal.lock";

/// One directory of files, as far as the journal needs it.
///
/// What [`DiskFile::write`] wrote need not outlive a crash before [`DiskFile::sync_data`] returned, and a name that came,
/// changed or went need not before [`sync_dir`](Self::sync_dir) returned: the journal expects no more of a disk.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Takes the directory for this process until the value is dropped. Says who has it, where another does.
    ///
    /// # Errors
    /// As the operating system says.
    fn lock(&self) -> io::Result<Result<Lock, String>>;

    /// The names and sizes of the files in the directory, in any order; what is in folders is left out.
    ///
    /// # Errors
    /// As the operating system says.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Makes a file, empty also where one of that name was there.
    ///
    /// # Errors
    /// As the operating system says.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file to read it.
    ///
    /// # Errors
    /// As the operating system says.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Cuts the file off after `len` bytes, for good: on disk once this returns.
    ///
    /// # Errors
    /// As the operating system says.
    fn truncate(&self, name: &str, len: u64) -> io::Result<()>;

    /// Gives a file another name, in place of the one that had it.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Moves a file into the folder `damaged` under a name that is free there, and says which: nothing is lost by it.
    ///
    /// # Errors
    /// As the operating system says.
    fn set_aside(&self, name: &str) -> io::Result<String>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns once the names in the directory are as they are for good.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync_dir(&self) -> io::Result<()>;
}

/// What holds the directory: dropped, it is free for another.
pub type Lock = Box<dyn std::any::Any + Send + Sync>;

/// One file.
pub trait DiskFile: Send {
    /// Writes at the end, maybe less than asked for, and says how much.
    ///
    /// # Errors
    /// As the operating system says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Returns once what was written is there for good.
    ///
    /// # Errors
    /// As the operating system says. What was written since the last success may then be lost, also if a later call succeeds.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Reads from `offset` on, maybe less than fits, and says how much: 0 at the end.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// Writes all of it.
pub(super) fn write_all(file: &mut dyn DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk takes no more bytes")),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

/// Reads until `into` is full or the file ends, and says how much there was.
pub(super) fn read_full(file: &mut dyn DiskFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(offset + done as u64, &mut into[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(done)
}

/// A directory of the operating system. Its files are readable by their owner alone.
#[derive(Debug)]
pub struct FsDisk {
    dir: PathBuf,
}

impl FsDisk {
    /// The directory, which is made if it is not there.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let made: Vec<&Path> = dir.ancestors().take_while(|path| !path.exists()).collect();
        builder.create(dir)?;
        // Its own name must last as well.
        for parent in made.iter().filter_map(|path| path.parent()) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
        Ok(Self::of(dir))
    }

    /// The directory, which is left as it is.
    pub(super) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Who has the directory, if anyone; changes nothing.
    pub(super) fn holder(&self) -> io::Result<Option<String>> {
        match File::open(self.dir.join(LOCK)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(why),
            Ok(mut file) => match file.try_lock_shared() {
                Ok(()) => Ok(None),
                Err(TryLockError::Error(why)) => Err(why),
                Err(TryLockError::WouldBlock) => Ok(Some(holder(&mut file))),
            },
        }
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options
    }
}

/// Whose process id stands in the lock file.
fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    match file.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
        _ => "another process".to_owned(),
    }
}

impl Disk for FsDisk {
    fn lock(&self) -> io::Result<Result<Lock, String>> {
        let mut file = Self::options().truncate(false).open(self.dir.join(LOCK))?;
        // A process that this one has just begun to start has a share in every lock until it runs.
        let mut tries = 0;
        while tries < LOCK_TRIES && matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            std::thread::sleep(LOCK_AGAIN);
            tries += 1;
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(why)) => return Err(why),
            Err(TryLockError::WouldBlock) => return Ok(Err(holder(&mut file))),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Ok(Box::new(file)))
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                files.push((name, meta.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FsFile(Self::options().truncate(true).open(self.dir.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FsFile(File::open(self.dir.join(name))?)))
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.dir.join(name))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn set_aside(&self, name: &str) -> io::Result<String> {
        let folder = self.dir.join(DAMAGED);
        Self::create(&folder)?;
        let mut to = format!("{DAMAGED}/{name}");
        for n in 2.. {
            if !self.dir.join(&to).try_exists()? {
                break;
            }
            to = format!("{DAMAGED}/{name}-{n}");
        }
        self.rename(name, &to)?;
        File::open(folder)?.sync_all()?;
        Ok(to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

struct FsFile(File);

impl DiskFile for FsFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.seek(SeekFrom::Start(offset))?;
        self.0.read(into)
    }
}
