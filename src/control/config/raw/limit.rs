//! Limits and budgets as written: the tables `limits`, `budget` and `address_limits`, and who they belong to.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The most of anything that a limit may be set to.
const LIMIT_MAX: u64 = 1_000_000_000_000;

const LIMITS_ABOUT: &str = "What a key, a team, an organisation, a model, a provider or a listener may use. A \
    limit holds for all workers and processes of a node together; a request is admitted by all that it is \
    under or by none.";

const BUDGET_ABOUT: &str = "What may be spent in a window of the calendar, in money or in tokens: reserved \
    before a call, settled to what it used. One table, or a list of tables.";

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Organisation {
    /// Unique; stands in logs and metrics.
    pub name: String,
    /// What its teams may use together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What its teams may spend together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budgets>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// Unique; stands in logs and metrics.
    pub name: String,
    /// The name of an `[[organisation]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// What its keys may use together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What its keys may spend together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budgets>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-table" = "limits", "x-about" = LIMITS_ABOUT))]
pub struct Limits {
    /// Requests that are admitted in a minute.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("x-hint" = "remove the key for no limit"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Tokens of input and output in a minute.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("x-hint" = "remove the key for no limit"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Tokens of input in a minute.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("x-hint" = "remove the key for no limit"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens_per_minute: Option<u64>,
    /// Tokens of output in a minute.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("x-hint" = "remove the key for no limit"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_minute: Option<u64>,
    /// Requests at the same time.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("x-hint" = "remove the key for no limit"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u64>,
    /// Streamed answers at the same time; at most `concurrent`.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("x-hint" = "remove the key for no limit"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<u64>,
    /// Decided and recorded, not enforced.
    pub shadow: bool,
    /// Output tokens that a request is taken to ask for, and is capped to, where neither it nor the catalogue
    /// says how many. The model's own value wins over the key's, the key's over its team's, and that over its
    /// organisation's; 4096 where none has it.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens_assumed: Option<u32>,
}

/// For each client address.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AddressLimits {
    /// Requests that are admitted in a minute.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("x-hint" = "remove the key for no limit"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Requests at the same time.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("x-hint" = "remove the key for no limit"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u64>,
    /// Decided and recorded, not enforced.
    pub shadow: bool,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Budgets {
    One(Budget),
    Several(#[schemars(length(min = 1, max = 10))] Vec<Budget>),
}

impl Budgets {
    pub fn all(&self) -> &[Budget] {
        match self {
            Budgets::One(one) => std::slice::from_ref(one),
            Budgets::Several(several) => several,
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-table" = "budget", "x-about" = BUDGET_ABOUT))]
pub struct Budget {
    /// Dollars, to the seventh decimal place. Either this or `tokens`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd: Option<Decimal>,
    /// Tokens of input and output. Either this or `usd`.
    #[schemars(range(min = 1, max = 100_000_000_000_000_u64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// After what it starts anew. Hours are those of UTC.
    pub window: Period,
    /// The time zone, as in the tz database, that days, weeks and months are of. Default: UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The hour at which a day of the budget begins. Default: 0.
    #[schemars(range(max = 23))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_hour: Option<u8>,
    /// The day that a week begins with. Default: monday.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub week_start: Option<Weekday>,
    /// What is reserved before a call: `"full"`, the most that it can cost, or `"step"`, its input and
    /// `step_tokens` of output, as many again as they are used up. A stream whose next step does not fit is
    /// ended as if it had reached its `max_tokens`.
    #[serde(default)]
    pub mode: Mode,
    /// Output tokens of a step. Default: 256.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_tokens: Option<u32>,
    /// What happens to a request that does not fit: `"refuse"`, `"warn"` (it is admitted), or `{ downgrade =
    /// "MODEL" }`: it is sent to that model instead.
    #[serde(default)]
    pub at_limit: AtLimit,
    /// Percentages of the budget that are told of as soon as they are spent, once in a window: on stderr, in
    /// `/metrics`, and to the webhook of `[alerts]`.
    #[serde(default)]
    #[schemars(length(max = 4))]
    pub alerts: Vec<Percent>,
    /// Decided and recorded, not enforced.
    #[serde(default)]
    pub shadow: bool,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Catalogue {
    /// A file in the form of `conf/models.toml`: what it has replaces all that is known of that name.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<String>,
    /// A file in the form of LiteLLM's `model_prices_and_context_window.json`: its entries replace built-in
    /// ones of the same name and vendor. Entries that cannot be understood are left out, with a warning.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub litellm: Option<String>,
    /// What becomes of requests to models without a price: `"refuse"`, `"allow"` (at no cost, and counted),
    /// or `{ usd_per_million_tokens = 75 }`: that is what their tokens cost.
    pub unpriced: Unpriced,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unpriced {
    Refuse,
    #[default]
    Allow,
    UsdPerMillionTokens(Decimal),
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Percent(#[schemars(range(min = 1, max = 100))] pub u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    Total,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Full,
    Step,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AtLimit {
    #[default]
    Refuse,
    Warn,
    Downgrade(#[schemars(length(min = 1))] String),
}

/// A number as it is written: `shape` makes text of it, so that no float stands between.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct Decimal(pub String);

impl JsonSchema for Decimal {
    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "exclusiveMinimum": 0 })
    }
}
