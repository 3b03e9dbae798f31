//! The client of a member: one that exists, or one made for it.

use crate::client::Client;
use crate::client::config::{ClientConfig, invalid};
use crate::error::Result;

/// Either a client given from outside or the options of one to be made: what builders of members hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientChoice {
    given: Option<Client>,
    own: Option<Box<ClientConfig>>,
}

impl ClientChoice {
    pub(crate) fn give(&mut self, client: &Client) {
        self.given = Some(client.clone());
    }

    pub(crate) fn own(&mut self) -> &mut ClientConfig {
        self.own.get_or_insert_default()
    }

    /// The client to use.
    pub(crate) fn take(self) -> Result<Client> {
        match (self.given, self.own) {
            (Some(_), Some(_)) => Err(invalid(
                "invalid options: client() together with options of a client (name_servers and others); set those on the client",
            )),
            (Some(client), None) => {
                client.core().check_usable()?;
                Ok(client)
            }
            (None, own) => Client::start(own.map_or_else(ClientConfig::default, |config| *config)),
        }
    }
}
