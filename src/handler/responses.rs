//! Stored responses.
use crate::base::error::{Error, Kind};
use crate::handler::llm::{After, Call, Stop};
use crate::net::downstream::Downstream;
use crate::policy::auth::Key;
pub async fn serve(
    _call: &mut Call<'_>,
    _d: &mut Downstream,
    _key: &Key,
    _id: &str,
    _action: &str,
) -> Result<After, Stop> {
    Err(Error::new(Kind::ResponseUnknown, "no such response").into())
}
