//! Which versions of a model route serve: what was promoted and rolled back, with its history, and
//! how a running gate learns of it.

use std::{collections::BTreeMap, sync::Arc};

use castra_core::{Digest, ModelName, Timestamp};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{State, corrupt};
use crate::StoreError;

/// How far a running gate has written promotions into its log.
const RECORDED: &str = "models.recorded";

/// One version's share of a route's calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The version, by its id.
    pub version: String,
    /// Its weight beside the others'.
    pub weight: u32,
    /// What the version was when it was promoted.
    pub digest: Digest,
}

/// What serves now, by route. A route that is not here serves as its configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Promotions {
    routes: BTreeMap<ModelName, Vec<Share>>,
}

impl Promotions {
    /// The shares of a route, if something was promoted.
    pub fn of(&self, route: &ModelName) -> Option<&[Share]> {
        self.routes.get(route).map(Vec::as_slice)
    }

    /// With these shares for a route.
    #[must_use]
    pub fn with(mut self, route: ModelName, shares: Vec<Share>) -> Self {
        self.routes.insert(route, shares);
        self
    }
}

/// What was done to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PromotionKind {
    /// A version was promoted.
    Promote,
    /// The last promotion was taken back.
    Rollback,
}

/// One entry of the history of routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PromotionRow {
    /// Its number; later ones are larger.
    pub id: u64,
    /// The route.
    pub route: ModelName,
    /// When.
    pub time: Timestamp,
    /// What was done.
    pub kind: PromotionKind,
    /// What serves since; none: as the configuration says.
    pub shares: Option<Vec<Share>>,
}

impl State {
    /// Changes what serves a route: `change` gets the shares of now, none if the configuration's count,
    /// and gives the new ones. Gives the entry that it made.
    pub fn promote(
        &self,
        route: &ModelName,
        now: Timestamp,
        change: impl FnOnce(Option<&[Share]>) -> Vec<Share>,
    ) -> Result<PromotionRow, StoreError> {
        self.write(|transaction| {
            let newest = newest(transaction, route)?;
            let shares = change(newest.as_ref().and_then(|n| n.row.shares.as_deref()));
            let before = newest.map(|n| n.row.id);
            insert(transaction, route, now, PromotionKind::Promote, Some(shares), before)
        })
    }

    /// Takes back the last promotion of a route; done again, the one before it. Gives the entry that it
    /// made, and what served until now.
    pub fn roll_back(
        &self,
        route: &ModelName,
        now: Timestamp,
    ) -> Result<(PromotionRow, Vec<Share>), StoreError> {
        self.write(|transaction| {
            let nothing = || StoreError::NothingPromoted { route: route.clone() };
            let newest = newest(transaction, route)?.ok_or_else(nothing)?;
            let was = newest.row.shares.ok_or_else(nothing)?;
            let goal = newest.before.map(|id| by_id(transaction, id)).transpose()?.flatten();
            let (shares, before) = goal.map_or((None, None), |goal| (goal.row.shares, goal.before));
            let row = insert(transaction, route, now, PromotionKind::Rollback, shares, before)?;
            Ok((row, was))
        })
    }

    /// What serves now.
    pub fn promotions(&self) -> Result<Promotions, StoreError> {
        self.read(promotions)
    }

    /// The history of all routes after an entry, or of all time (0), in its order.
    pub fn promotion_history(&self, after: u64) -> Result<Vec<PromotionRow>, StoreError> {
        self.read(|transaction| history(transaction, after))
    }

    /// The last entry of the history that stands in the log.
    pub fn promotions_recorded(&self) -> Result<u64, StoreError> {
        let recorded = self.setting(RECORDED)?;
        recorded.map_or(Ok(0), |text| text.parse().map_err(|e| corrupt("a setting", e)))
    }

    /// Notes that the history up to this entry stands in the log.
    pub fn set_promotions_recorded(&self, id: u64) -> Result<(), StoreError> {
        self.set_setting(RECORDED, &id.to_string())
    }
}

/// Looks for promotions that this or another process made.
#[derive(Debug)]
pub struct PromotionFollower {
    state: Arc<State>,
    seen: Option<i64>,
}

impl PromotionFollower {
    /// Follows from nothing: the first look gives what there is.
    pub fn new(state: Arc<State>) -> Self {
        Self { state, seen: None }
    }

    /// What serves now and the entries that no log has yet, when something changed since the last time.
    /// Costs some microseconds when nothing did.
    pub fn poll(&mut self) -> Result<Option<(Promotions, Vec<PromotionRow>)>, StoreError> {
        let version = self.state.read(version)?;
        if self.seen == Some(version) {
            return Ok(None);
        }
        let recorded = self.state.promotions_recorded()?;
        let found =
            self.state.read(|transaction| Ok((promotions(transaction)?, history(transaction, recorded)?)))?;
        self.seen = Some(version);
        Ok(Some(found))
    }
}

struct Kept {
    row: PromotionRow,
    before: Option<u64>,
}

const SELECT: &str = "SELECT id, route, time, kind, shares, before FROM promotions";

fn newest(transaction: &Transaction<'_>, route: &ModelName) -> Result<Option<Kept>, StoreError> {
    one(transaction, "WHERE route = ?1 ORDER BY id DESC LIMIT 1", params![route.as_str()])
}

fn by_id(transaction: &Transaction<'_>, id: u64) -> Result<Option<Kept>, StoreError> {
    one(transaction, "WHERE id = ?1", params![id as i64])
}

fn one(
    transaction: &Transaction<'_>,
    which: &str,
    params: &[&dyn rusqlite::ToSql],
) -> Result<Option<Kept>, StoreError> {
    let mut statement = transaction.prepare_cached(&format!("{SELECT} {which}"))?;
    statement.query_row(params, |row| Ok(kept(row))).optional()?.transpose()
}

fn insert(
    transaction: &Transaction<'_>,
    route: &ModelName,
    time: Timestamp,
    kind: PromotionKind,
    shares: Option<Vec<Share>>,
    before: Option<u64>,
) -> Result<PromotionRow, StoreError> {
    let text = shares.as_ref().map(serde_json::to_string).transpose().map_err(|e| corrupt("shares", e))?;
    let word = match kind {
        PromotionKind::Promote => "promote",
        PromotionKind::Rollback => "rollback",
    };
    transaction.execute(
        "INSERT INTO promotions (route, time, kind, shares, before) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![route.as_str(), time.0, word, text, before.map(|id| id as i64)],
    )?;
    let id = id(transaction.last_insert_rowid())?;
    transaction.execute("UPDATE counters SET value = value + 1 WHERE name = 'models'", [])?;
    Ok(PromotionRow { id, route: route.clone(), time, kind, shares })
}

fn promotions(transaction: &Transaction<'_>) -> Result<Promotions, StoreError> {
    let sql = format!("{SELECT} WHERE id IN (SELECT max(id) FROM promotions GROUP BY route)");
    let mut statement = transaction.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    let mut found = Promotions::default();
    while let Some(row) = rows.next()? {
        let PromotionRow { route, shares, .. } = kept(row)?.row;
        found.routes.extend(shares.map(|shares| (route, shares)));
    }
    Ok(found)
}

fn history(transaction: &Transaction<'_>, after: u64) -> Result<Vec<PromotionRow>, StoreError> {
    let mut statement = transaction.prepare_cached(&format!("{SELECT} WHERE id > ?1 ORDER BY id"))?;
    let mut rows = statement.query([after as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(kept(row)?.row);
    }
    Ok(found)
}

fn version(transaction: &Transaction<'_>) -> Result<i64, StoreError> {
    let mut statement = transaction.prepare_cached("SELECT value FROM counters WHERE name = 'models'")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

fn kept(row: &Row<'_>) -> Result<Kept, StoreError> {
    let kind = match row.get::<_, String>(3)?.as_str() {
        "promote" => PromotionKind::Promote,
        "rollback" => PromotionKind::Rollback,
        other => return Err(corrupt("a promotion", other)),
    };
    let shares = row.get::<_, Option<String>>(4)?;
    let shares = shares.map(|text| serde_json::from_str(&text)).transpose();
    Ok(Kept {
        row: PromotionRow {
            id: id(row.get(0)?)?,
            route: ModelName::new(&row.get::<_, String>(1)?).map_err(|e| corrupt("a route's name", e))?,
            time: Timestamp(row.get(2)?),
            kind,
            shares: shares.map_err(|e| corrupt("shares", e))?,
        },
        before: row.get::<_, Option<i64>>(5)?.map(id).transpose()?,
    })
}

fn id(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|e| corrupt("a promotion's number", e))
}
