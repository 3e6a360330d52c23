//! The servers of a database as they are named behind a proxy on this host:
//! so the self-test can cut the line between a leasewrap and its database.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use sqlx::postgres::PgSslMode;

use super::settings::PgSettings;
use super::url::Parameters;
use crate::store::selftest::NoHop;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Host and port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// One server, and how to name it behind a proxy. Holds credentials, and
/// shows none.
pub struct Hop {
    /// Where the server listens: what the proxy connects to.
    pub place: Place,
    parameters: Parameters,
}

impl Hop {
    /// The URL for a proxy that listens on `port` of 127.0.0.1.
    pub fn url(&self, port: u16) -> String {
        let (address, port) = (Ipv4Addr::LOCALHOST.to_string(), port.to_string());
        // `hostaddr` too, or the environment's would be put in its place.
        let proxy = [("host", &address), ("hostaddr", &address), ("port", &port)];
        let kept = self
            .parameters
            .iter()
            .filter(|(keyword, _)| proxy.iter().all(|(proxied, _)| proxied != *keyword))
            .map(|(keyword, value)| (*keyword, value));
        let pairs: Vec<String> = proxy
            .into_iter()
            .chain(kept)
            .map(|(keyword, value)| format!("{keyword}={}", encoded(value)))
            .collect();
        format!("postgres:///?{}", pairs.join("&"))
    }
}

/// Percent-encoded.
fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

impl PgSettings {
    /// The servers, in the order in which they are tried.
    pub(in crate::store) fn hops(&self) -> Result<Vec<Hop>, NoHop> {
        let mut hops = Vec::new();
        for (named, targets) in self.named().map_err(NoHop::Settings)? {
            for target in targets {
                if matches!(target.tls[..], [PgSslMode::VerifyFull]) {
                    return Err(NoHop::Verified);
                }
                let place = match target.options.get_socket() {
                    Some(dir) => {
                        Place::Unix(dir.join(format!(".s.PGSQL.{}", target.options.get_port())))
                    }
                    None => Place::Tcp(
                        target.options.get_host().to_owned(),
                        target.options.get_port(),
                    ),
                };
                let mut parameters = named.clone();
                // The password file knows the server by its own name.
                if let Some(password) = target.password() {
                    parameters.insert("password", password.to_owned());
                }
                // The server speaks no TLS over its socket.
                if matches!(place, Place::Unix(_)) {
                    parameters.insert("sslmode", "disable".to_owned());
                }
                hops.push(Hop { place, parameters });
            }
        }
        Ok(hops)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::PgSource;
    use super::super::url;
    use super::*;
    use crate::store::settings::Surroundings;

    fn hops(url: &str, variables: &[(&str, &str)]) -> Result<Vec<Hop>, NoHop> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let surroundings =
            Surroundings::new(variables, Some("me".to_owned()), PathBuf::from("/here"));
        let source = PgSource::Urls(vec![url.to_owned()]);
        let settings = PgSettings::new(source, "leasewrap", surroundings).expect("a URL");
        settings.hops()
    }

    #[test]
    fn every_server_is_led_through_a_proxy_with_its_credentials() {
        let hops = hops("postgres://u:p%40 s@a:1,b:2/d?sslmode=disable", &[]).expect("hops");
        let places: Vec<_> = hops.iter().map(|hop| hop.place.clone()).collect();
        let tcp = |host: &str, port| Place::Tcp(host.to_owned(), port);
        assert_eq!(places, [tcp("a", 1), tcp("b", 2)]);
        let parameters = url::parse(&hops[1].url(77)).expect("a URL again");
        for (keyword, value) in [
            ("host", "127.0.0.1"),
            ("hostaddr", "127.0.0.1"),
            ("port", "77"),
            ("user", "u"),
            ("password", "p@ s"),
            ("dbname", "d"),
            ("sslmode", "disable"),
        ] {
            assert_eq!(parameters.get(keyword).map(String::as_str), Some(value));
        }
    }

    #[test]
    fn a_socket_speaks_no_tls_and_a_verified_name_cannot_be_led_elsewhere() {
        let hops_of = |url: &str| hops(url, &[("PGPASSWORD", "x")]);
        let socket = hops_of("postgres:///d?host=/run/pg&port=6").expect("a hop");
        assert_eq!(socket[0].place, Place::Unix("/run/pg/.s.PGSQL.6".into()));
        let url = socket[0].url(9);
        assert!(url.contains("sslmode=disable") && url.contains("password=x"));
        let verified = hops_of("postgres://h/d?sslmode=verify-full");
        assert_eq!(verified.err(), Some(NoHop::Verified));
    }
}
