//! The door itself: how many may stand in it, and for how long.
//!
//! Whoever opens a connection and then says nothing (or one byte a minute) must not keep others out. Axum's own server waits for
//! a request for ever, so each connection carries an egg timer: ten seconds for a head, somewhat longer between requests, and a
//! limit for a reader who does not read. The timer looks only for the empty line that ends a head; understanding HTTP stays
//! where it was.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at the same time; further ones wait in the kernel's queue. Enough for a company's on-call screens, small in memory.
pub const CONNECTIONS_MAX: usize = 1_024;
/// A head that takes longer is no browser's.
pub const HEADER_SECONDS_MAX: u64 = 10;
/// Between two requests of one connection; longer than the usual scrape interval of 60 s.
const IDLE_SECONDS_MAX: u64 = 75;
/// Without a single byte taken by the reader.
const STALL_SECONDS_MAX: u64 = 30;

/// Listens, and lets in as many as there is room for.
pub struct Door {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Door {
    pub fn new(listener: TcpListener) -> Door {
        Door { listener, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl Listener for Door {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        loop {
            let Ok(place) = Arc::clone(&self.room).acquire_owned().await else {
                // Never closed; were it, waiting is all that is left.
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Small answers should not wait for more; that they might is no reason to refuse.
                    let _ = stream.set_nodelay(true);
                    return (Visit::new(stream, place), peer);
                }
                Err(e) => {
                    // Out of file descriptors, most likely: others are about to leave.
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl axum::extract::connect_info::Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Peer {
        Peer(*stream.remote_addr())
    }
}

/// One connection with its timer.
pub struct Visit {
    stream: TcpStream,
    phase: Phase,
    timer: Pin<Box<Sleep>>,
    stall: Pin<Box<Sleep>>,
    is_stalled: bool,
    _place: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    /// A head has begun, or the connection has: the timer runs. Holds how much of the empty line has been seen.
    Head(u8),
    /// Request read, no answer yet: the handler has a limit of its own.
    Busy,
    /// Answered, waiting for the next request.
    Idle,
}

impl Visit {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Visit {
        let timer = Box::pin(tokio::time::sleep(Duration::from_secs(HEADER_SECONDS_MAX)));
        let stall = Box::pin(tokio::time::sleep(Duration::from_secs(STALL_SECONDS_MAX)));
        Visit { stream, phase: Phase::Head(0), timer, stall, is_stalled: false, _place: place }
    }

    fn wind(&mut self, seconds: u64) {
        self.timer.as_mut().reset(Instant::now() + Duration::from_secs(seconds));
    }

    fn saw(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.phase == Phase::Idle {
            self.phase = Phase::Head(0);
            self.wind(HEADER_SECONDS_MAX);
        }
        if let Phase::Head(seen) = self.phase {
            self.phase = after(seen, bytes).map_or(Phase::Busy, Phase::Head);
        }
    }

    fn stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_stalled {
            self.is_stalled = true;
            self.stall.as_mut().reset(Instant::now() + Duration::from_secs(STALL_SECONDS_MAX));
        }
        ready!(self.stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn wrote(&mut self) {
        self.is_stalled = false;
        self.phase = Phase::Idle;
        self.wind(IDLE_SECONDS_MAX);
    }
}

/// Line ends in a row after `bytes`, or `None` once an empty line has been seen. Carriage returns do not count either way.
fn after(seen: u8, bytes: &[u8]) -> Option<u8> {
    let mut seen = seen;
    for byte in bytes {
        match byte {
            b'\n' if seen == 1 => return None,
            b'\n' => seen = 1,
            b'\r' => {}
            _ => seen = 0,
        }
    }
    Some(seen)
}

impl AsyncRead for Visit {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                self.saw(&buffer.filled()[before..]);
                // A trickle keeps the socket readable: the time is up all the same.
                if matches!(self.phase, Phase::Head(_)) && self.timer.is_elapsed() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => match self.phase {
                Phase::Busy => Poll::Pending,
                Phase::Head(_) => {
                    ready!(self.timer.as_mut().poll(context));
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                // To the server this is a peer that has left.
                Phase::Idle => {
                    ready!(self.timer.as_mut().poll(context));
                    Poll::Ready(Ok(()))
                }
            },
        }
    }
}

impl AsyncWrite for Visit {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(done) => {
                self.wrote();
                Poll::Ready(done)
            }
            Poll::Pending => self.stalled(context).map_ok(|()| 0),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, slices) {
            Poll::Ready(done) => {
                self.wrote();
                Poll::Ready(done)
            }
            Poll::Pending => self.stalled(context).map_ok(|()| 0),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line_however_it_is_cut() {
        for text in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n"] {
            for cut in 0..text.len() {
                let (first, rest) = text.as_bytes().split_at(cut);
                let seen = after(0, first);
                assert!(seen.is_some(), "{text:?} ended at {cut}");
                assert_eq!(after(seen.unwrap(), rest), None, "{text:?} cut at {cut}");
            }
        }
    }
}
