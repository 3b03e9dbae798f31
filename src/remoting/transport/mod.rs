//! The seam between a connection's frames and its socket: plain bytes here, TLS by the same calls.
//!
//! A transport belongs to `rmq-remoting`, which alone may use it: a TLS session is one `&mut` for both directions. Only
//! behind [`Plain`] may callers write to the socket themselves. Until its handshake is done a connection is being
//! dialled: no frame reaches the transport, no one-way request is accepted, and the connect timeout runs.

use std::fmt;
use std::io::{self, Read, Write};

use mio::net::TcpStream;

/// Turns the bytes of frames into those of the socket and back.
///
/// The selector calls again after the next event of the socket: `WouldBlock` is only to be returned after the socket
/// has returned it.
pub(crate) trait Transport: fmt::Debug + Send {
    /// Continues the handshake; `Ok` once it is done. `WouldBlock` means that it needs bytes of the peer, or room in
    /// the socket. Any other error fails the dial of this address. Called until it is done, and before all other
    /// functions.
    fn handshake(&mut self, socket: &TcpStream) -> io::Result<()>;

    /// Reads decoded bytes into `buffer`. `Ok(0)` is the end of the stream, `WouldBlock` means that the socket has no
    /// more now.
    fn read(&mut self, socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes as many of `bytes` as it can now. `WouldBlock` means that it takes none until the socket is writable.
    fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize>;

    /// Writes the bytes that the transport itself holds back, as the rest of a record. `WouldBlock` means that some are
    /// left.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<()>;

    /// Writes the protocol's end of stream, if the socket takes it at once. Called before the connection is closed.
    fn close(&mut self, socket: &TcpStream);

    /// True if the bytes of frames go to the socket unchanged, so that callers may write there themselves.
    fn is_plain(&self) -> bool;
}

/// Creates the transport of a new connection to `address`.
pub(crate) type MakeTransport = dyn Fn(&str) -> io::Result<Box<dyn Transport>> + Send + Sync;

/// Transport without an encoding: the bytes of frames are those of the socket.
#[derive(Debug)]
pub(crate) struct Plain;

impl Transport for Plain {
    fn handshake(&mut self, _socket: &TcpStream) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, mut socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        socket.read(buffer)
    }

    fn write(&mut self, mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        socket.write(bytes)
    }

    fn flush(&mut self, _socket: &TcpStream) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self, _socket: &TcpStream) {}

    fn is_plain(&self) -> bool {
        true
    }
}
