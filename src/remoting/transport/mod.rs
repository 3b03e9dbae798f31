//! The seam between a connection's frames and its socket: plain bytes today, TLS on the same two calls.
//!
//! A transport belongs to the selector, which alone may use it, since a TLS session is one `&mut` for both directions.
//! Only behind [`Plain`] may callers write to the socket themselves.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

/// Turns the bytes of frames into those of the socket and back.
pub(crate) trait Transport: Send {
    /// Reads decoded bytes into `buffer`: `Ok(0)` is the end of the stream, `WouldBlock` means that the socket has no
    /// more now.
    fn read(&mut self, socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize>;

    /// Takes as many of `bytes` as it can now; `WouldBlock` when it can take none until the socket is writable.
    fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize>;

    /// Hands to the socket what the transport itself holds back (a handshake, the rest of a record); `WouldBlock` when
    /// something is left.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<()>;

    /// The connection is about to be closed: says what the protocol wants said (TLS: that this is the end and nobody cut
    /// the stream), if the socket takes it at once. Nothing depends on whether it does.
    fn close(&mut self, socket: &TcpStream);

    /// Whether frames' bytes go to the socket unchanged, so that callers may write there themselves.
    fn is_plain(&self) -> bool;
}

/// Makes the transport of a new connection to `address`.
pub(crate) type MakeTransport = dyn Fn(&str) -> io::Result<Box<dyn Transport>> + Send + Sync;

/// Bytes as they are.
#[derive(Debug)]
pub(crate) struct Plain;

impl Transport for Plain {
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
