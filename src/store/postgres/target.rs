//! Where a server may be and how to log in there: URL, environment, service,
//! password file and defaults, put together as libpq does. sqlx knows one
//! host and a part of the keywords; the rest is done here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

mod tls;

pub(super) use self::tls::Roots;
use self::tls::Tls;
use super::passfile::{self, Found, Wanted};
use super::url::{self, Parameters, UrlError};
use crate::store::settings::Surroundings;

/// Which servers are good enough (`target_session_attrs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attributes {
    /// Whichever answers first, for what only reads; else as below.
    Any,
    /// One that can be written to.
    ReadWrite,
}

/// One place where a server may be.
#[derive(Clone)]
pub(super) struct Target {
    /// For people: `host:port`, or the path of the socket.
    pub shown: String,
    /// For sqlx, but for the mode of TLS.
    pub options: PgConnectOptions,
    /// Modes of TLS to try, in this order; the second one only where the
    /// server or the handshake refused the first.
    pub tls: Vec<PgSslMode>,
    /// Which servers are good enough.
    pub attributes: Attributes,
    /// `connect_timeout`, for this host alone.
    pub connect_timeout: Option<Duration>,
    /// Said beside a refused login: why a password file was not used.
    pub note: Option<String>,
    /// Whether the user has given `options` of his own.
    pub own_options: bool,
    password: Option<String>,
    roots: Option<Roots>,
}

impl Target {
    /// Against whom the server's certificate is checked, if at all.
    pub(super) fn roots(&self) -> Option<Roots> {
        self.roots
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// `text` without the password, should a server have repeated it.
    pub(super) fn scrubbed(&self, text: &str) -> String {
        match &self.password {
            Some(password) if password.len() >= 4 => text.replace(password.as_str(), "…"),
            _ => text.to_owned(),
        }
    }
}

/// All places that one connection string names.
pub(super) fn resolve(
    mut parameters: Parameters,
    surroundings: &Surroundings,
) -> Result<Vec<Target>, UrlError> {
    // What is written here wins over the service, the service over the
    // environment (libpq's conninfo_add_defaults).
    let environment = url::of_environment(&surroundings.variables)?;
    if let Some(name) = parameters.get("service").or(environment.get("service")) {
        let files = service_files(surroundings);
        let found = passfile::service(name, files.iter().map(PathBuf::as_path))?;
        merge(&mut parameters, found);
    }
    merge(&mut parameters, environment);
    let get = |keyword: &str| {
        parameters
            .get(keyword)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };

    let places = places(get("host"), get("hostaddr"), get("port"))?;
    let user = get("user")
        .or(surroundings.user.as_deref())
        .ok_or_else(|| UrlError::new("no user is named", "give postgres://USER@HOST/DATABASE"))?;
    let database = get("dbname").unwrap_or(user);
    let connect_timeout = connect_timeout(get("connect_timeout"))?;
    let attributes = attributes(get("target_session_attrs"))?;
    let tls = Tls::new(get, surroundings)?;

    let mut targets = Vec::with_capacity(places.len());
    for place in places {
        let (password, note) = match get("password") {
            Some(password) => (Some(password.to_owned()), None),
            None => looked_up(get("passfile"), &place, database, user, surroundings),
        };
        let mut options = PgConnectOptions::new_without_pgpass()
            .disable_statement_logging()
            .port(place.port)
            .username(user)
            .database(database)
            // PgBouncer refuses start-up parameters that it does not know.
            .extra_float_digits(None);
        options = match &place.socket_dir {
            Some(dir) => options.socket(dir),
            None => options.host(&place.address),
        };
        if let Some(password) = &password {
            options = options.password(password);
        }
        if let Some(own) = get("options") {
            // Where the variable has said the same, sqlx has taken it already.
            if surroundings
                .variables
                .get("PGOPTIONS")
                .is_none_or(|seen| seen != own)
            {
                options = options.options(parse_options(own)?);
            }
        }
        let (options, tls) = tls.apply(options, &place)?;
        targets.push(Target {
            shown: place.shown(),
            options,
            tls: tls.modes,
            attributes,
            connect_timeout,
            note,
            own_options: get("options").is_some(),
            password,
            roots: tls.roots,
        });
    }
    if balanced(get("load_balance_hosts"))? {
        shuffle(&mut targets);
    }
    Ok(targets)
}

fn merge(into: &mut Parameters, from: Parameters) {
    for (keyword, value) in from {
        into.entry(keyword).or_insert(value);
    }
}

fn service_files(surroundings: &Surroundings) -> Vec<PathBuf> {
    let variable = |name: &str| surroundings.variables.get(name).map(PathBuf::from);
    let own = variable("PGSERVICEFILE").or_else(|| {
        surroundings
            .home
            .as_ref()
            .map(|home| home.join(".pg_service.conf"))
    });
    let system =
        variable("PGSYSCONFDIR").unwrap_or_else(|| PathBuf::from("/etc/postgresql-common"));
    own.into_iter()
        .chain([system.join("pg_service.conf")])
        .collect()
}

/// One of the hosts.
struct Place {
    /// As it was written: what certificates and password files call it.
    name: String,
    /// What to connect to.
    address: String,
    port: u16,
    socket_dir: Option<PathBuf>,
}

impl Place {
    fn shown(&self) -> String {
        match &self.socket_dir {
            Some(dir) => format!("{}/.s.PGSQL.{}", dir.display(), self.port),
            None if self.address.contains(':') => format!("[{}]:{}", self.address, self.port),
            None => format!("{}:{}", self.address, self.port),
        }
    }
}

/// Puts the lists of hosts, addresses and ports together.
fn places(
    hosts: Option<&str>,
    addresses: Option<&str>,
    ports: Option<&str>,
) -> Result<Vec<Place>, UrlError> {
    let list = |text: Option<&str>| -> Vec<String> {
        text.map(|text| text.split(',').map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let (hosts, addresses, ports) = (list(hosts), list(addresses), list(ports));
    let count = hosts.len().max(addresses.len()).max(1);
    for (what, found) in [
        ("hosts", hosts.len()),
        ("addresses (hostaddr)", addresses.len()),
    ] {
        if found != 0 && found != count {
            let what = format!("there are {found} {what} for {count} places");
            return Err(UrlError::new(what, "give as many of one as of the other"));
        }
    }
    if ports.len() > 1 && ports.len() != count {
        let what = format!("there are {} ports for {count} hosts", ports.len());
        return Err(UrlError::new(what, "give one port, or one for each host"));
    }
    (0..count)
        .map(|at| {
            let text = |list: &[String]| list.get(at).cloned().unwrap_or_default();
            let port = ports.get(if ports.len() == 1 { 0 } else { at });
            place(
                text(&hosts),
                text(&addresses),
                port.map_or("", String::as_str),
            )
        })
        .collect()
}

fn place(host: String, address: String, port: &str) -> Result<Place, UrlError> {
    let port = match port.trim() {
        "" => 5432,
        port => match port.parse() {
            Ok(port @ 1..) => port,
            _ => {
                // Where the host was forgotten the password stands here.
                let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
                let shown = if is_number { port } else { "…" };
                let right =
                    "give a number from 1 to 65535, as in postgres://USER@HOST:PORT/DATABASE";
                return Err(UrlError::value("port", shown, right));
            }
        },
    };
    if !address.is_empty() {
        if address.parse::<IpAddr>().is_err() {
            return Err(UrlError::value("hostaddr", &address, "give an IP address"));
        }
        let name = if host.is_empty() {
            address.clone()
        } else {
            host
        };
        return Ok(Place {
            name,
            address,
            port,
            socket_dir: None,
        });
    }
    if host.starts_with('@') {
        return Err(UrlError::value(
            "host",
            &host,
            "leasewrap cannot use abstract sockets",
        ));
    }
    let socket_dir = match host.as_str() {
        "" => default_socket_dir(port),
        host if host.starts_with('/') => Some(PathBuf::from(host)),
        _ => None,
    };
    // libpq's password file knows the default socket as localhost, also where
    // its directory is named (passwordFromFile in fe-connect.c).
    let is_default = DEFAULT_SOCKET_DIRS.contains(&host.trim_end_matches('/'));
    let name = if host.is_empty() || is_default {
        "localhost".to_owned()
    } else {
        host
    };
    Ok(Place {
        address: name.clone(),
        name,
        port,
        socket_dir,
    })
}

/// Where a local server listens, by Debian's default or by PostgreSQL's.
const DEFAULT_SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

fn default_socket_dir(port: u16) -> Option<PathBuf> {
    DEFAULT_SOCKET_DIRS
        .into_iter()
        .map(PathBuf::from)
        .find(|dir| dir.join(format!(".s.PGSQL.{port}")).exists())
}

fn connect_timeout(text: Option<&str>) -> Result<Option<Duration>, UrlError> {
    let Some(text) = text else { return Ok(None) };
    match text.trim().parse::<i64>() {
        Ok(seconds) => Ok(u64::try_from(seconds)
            .ok()
            .filter(|s| *s > 0)
            .map(Duration::from_secs)),
        Err(_) => Err(UrlError::value(
            "connect_timeout",
            text,
            "give whole seconds",
        )),
    }
}

fn attributes(text: Option<&str>) -> Result<Attributes, UrlError> {
    match text {
        None | Some("read-write" | "primary") => Ok(Attributes::ReadWrite),
        Some("any") => Ok(Attributes::Any),
        Some(other) => Err(UrlError::value(
            "target_session_attrs",
            other,
            "give read-write, primary or any: a lease must be written",
        )),
    }
}

fn balanced(text: Option<&str>) -> Result<bool, UrlError> {
    match text {
        None | Some("disable") => Ok(false),
        Some("random") => Ok(true),
        Some(other) => Err(UrlError::value(
            "load_balance_hosts",
            other,
            "give disable or random",
        )),
    }
}

fn shuffle<T>(list: &mut [T]) {
    for end in (1..list.len()).rev() {
        list.swap(end, rand::random_range(0..=end));
    }
}

/// The settings in `-c name=value` and `--name=value`, where a backslash
/// takes the next character as it is.
fn parse_options(text: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => words
                .last_mut()
                .into_iter()
                .for_each(|word| word.extend(chars.next())),
            c if c.is_whitespace() => words.push(String::new()),
            c => words.last_mut().into_iter().for_each(|word| word.push(c)),
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next().unwrap_or_default(),
            Some(setting) => setting.to_owned(),
            None => String::new(),
        };
        let Some((name, value)) = setting.split_once('=') else {
            return Err(UrlError::value("options", text, "give -c NAME=VALUE"));
        };
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

/// The password for `place` from the password file, and why there is none.
fn looked_up(
    passfile: Option<&str>,
    place: &Place,
    database: &str,
    user: &str,
    surroundings: &Surroundings,
) -> (Option<String>, Option<String>) {
    let path = match passfile {
        Some(path) => surroundings.directory.join(path),
        None => match &surroundings.home {
            Some(home) => home.join(".pgpass"),
            None => return (None, None),
        },
    };
    let wanted = Wanted {
        host: &place.name,
        port: place.port,
        database,
        user,
    };
    match passfile::password(&path, wanted) {
        Found::Password(password) => (Some(password), None),
        Found::Nothing => (None, None),
        Found::TooOpen => {
            let note = format!(
                "the password file {} is not used: others may read it (chmod 600)",
                path.display()
            );
            (None, Some(note))
        }
    }
}

#[cfg(test)]
mod tests;
