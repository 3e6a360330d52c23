//! A session that may fail, unlike the kit's psql.

use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError};
use sqlx::{AssertSqlSafe, ConnectOptions, Either, Row, ValueRef};

use crate::support::server::Server;

/// A connection of somebody else's.
pub struct Client(PgConnection);

/// SQLSTATE and message.
pub type Said = Result<String, (String, String)>;

impl Client {
    /// As the superuser, by the socket.
    pub async fn new(server: &Server) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(server.dir())
            .port(server.port())
            .username("postgres")
            .database("postgres")
            .application_name("somebody");
        Self(options.connect().await.expect("connect"))
    }

    /// The first column of all rows, parted by spaces.
    pub async fn run(&mut self, sql: &str) -> Said {
        let mut texts = Vec::new();
        let mut answers = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(&mut self.0);
        loop {
            match answers.try_next().await {
                Ok(None) => return Ok(texts.join(" ")),
                Ok(Some(Either::Left(_))) => {}
                Ok(Some(Either::Right(row))) => {
                    let value = row.try_get_raw(0).expect("a column");
                    let text = if value.is_null() {
                        ""
                    } else {
                        value.as_str().expect("text")
                    };
                    texts.push(text.to_owned());
                }
                Err(sqlx::Error::Database(error)) => {
                    let error = error.downcast_ref::<PgDatabaseError>();
                    let detail = error.detail().unwrap_or_default();
                    return Err((
                        error.code().to_owned(),
                        format!("{} {detail}", error.message()),
                    ));
                }
                Err(error) => return Err((String::new(), error.to_string())),
            }
        }
    }

    /// As [`Self::run`], where nothing may fail.
    #[track_caller]
    pub fn ok(&mut self, sql: &str) -> impl Future<Output = String> {
        let sql = sql.to_owned();
        async move {
            self.run(&sql)
                .await
                .unwrap_or_else(|said| panic!("{sql}: {said:?}"))
        }
    }
}
