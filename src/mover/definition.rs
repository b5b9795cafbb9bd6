//! A [`Definition`]: one object of a database, of one [`Kind`]; and which objects belong to the tenant.

use serde::{Deserialize, Serialize};

/// One object of a database, such as a table, a column or a constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Its kind.
    #[serde(rename = "k")]
    pub kind: Kind,
    /// Its name, unique among its kind.
    #[serde(rename = "n")]
    pub name: String,
    /// Its attributes, which are compared as strings.
    #[serde(rename = "a", default, skip_serializing_if = "String::is_empty")]
    pub attributes: String,
    /// Its expression or query, as the server deparsed it.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The relation or the type that the text is about, as it is written in SQL.
    #[serde(rename = "o", default, skip_serializing_if = "String::is_empty")]
    pub on: String,
    /// The statement that creates it, if a restore may have to create it one by one; for a trigger, the one that drops
    /// it.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub make: Option<String>,
}

impl Definition {
    /// What it is, for people: `constraint app.tickets tickets_status_check`.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind.words(), self.name)
    }
}

/// Kinds of definitions, in the order in which they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "each is named as PostgreSQL names it")]
pub enum Kind {
    Schema,
    Extension,
    Type,
    Relation,
    Column,
    Default,
    Generated,
    PartitionKey,
    NotNull,
    Check,
    DomainCheck,
    DomainDefault,
    Constraint,
    Index,
    IndexExpressions,
    IndexPredicate,
    View,
    Function,
    Aggregate,
    Trigger,
    Rule,
    Policy,
    PolicyUsing,
    PolicyCheck,
    Sequence,
    Statistics,
    StatisticsExpressions,
    Operator,
    OperatorClass,
    OperatorFamily,
    Cast,
    Collation,
    Conversion,
    Dictionary,
    Configuration,
    Transform,
    Server,
    Comment,
    Dependencies,
}

impl Kind {
    /// The words by which people know the kind.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Extension => "extension",
            Self::Type => "type",
            Self::Relation => "relation",
            Self::Column => "column",
            Self::Default => "default of column",
            Self::Generated => "expression of generated column",
            Self::PartitionKey => "partition key of",
            Self::NotNull => "NOT NULL of column",
            Self::Check | Self::Constraint => "constraint",
            Self::DomainCheck => "constraint of domain",
            Self::DomainDefault => "default of domain",
            Self::Index => "index",
            Self::IndexExpressions => "expressions of index",
            Self::IndexPredicate => "predicate of index",
            Self::View => "view",
            Self::Function => "function",
            Self::Aggregate => "aggregate",
            Self::Trigger => "trigger",
            Self::Rule => "rule",
            Self::Policy => "policy",
            Self::PolicyUsing => "USING of policy",
            Self::PolicyCheck => "WITH CHECK of policy",
            Self::Sequence => "sequence",
            Self::Statistics => "statistics",
            Self::StatisticsExpressions => "expressions of statistics",
            Self::Operator => "operator",
            Self::OperatorClass => "operator class",
            Self::OperatorFamily => "operator family",
            Self::Cast => "cast",
            Self::Collation => "collation",
            Self::Conversion => "conversion",
            Self::Dictionary => "text search dictionary",
            Self::Configuration => "text search configuration",
            Self::Transform => "transform",
            Self::Server => "foreign server",
            Self::Comment => "comment on",
            Self::Dependencies => "operators and functions of",
        }
    }
}

/// The schema that the operator keeps for extensions.
pub(super) const EXTENSIONS: &str = crate::database::extensions::SCHEMA;

/// The SQL condition for an object that belongs to the tenant: it is in no schema of the system, and is no member of an
/// extension.
macro_rules! own {
    ($class:literal, $oid:literal, $namespace:literal) => {
        concat!(
            $namespace,
            " NOT IN (SELECT oid FROM pg_namespace WHERE nspname = 'information_schema' OR nspname LIKE 'pg\\_%') ",
            "AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.deptype = 'e' AND e.classid = '",
            $class,
            "'::regclass AND e.objid = ",
            $oid,
            ")"
        )
    };
}
pub(super) use own;
