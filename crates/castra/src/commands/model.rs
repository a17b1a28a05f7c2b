//! `castra model`: the routes that agents name, which of their versions serve, and the change of that.

use std::num::NonZeroU32;

use castra_core::{Digest, ModelName};
use castra_gateway::model::initial_shares;
use castra_store::{PromotionRow, Promotions, Share};
use serde::Serialize;
use serde_json::json;

use crate::{
    cli::ModelCommand,
    config::{Model, ModelVersion},
    context::Context,
    out::{Exit, Failure, Outcome, minute},
    up,
};

pub(super) fn run(mut cx: Context, command: ModelCommand) -> Outcome {
    match command {
        ModelCommand::List => list(&mut cx)?,
        ModelCommand::Show { route } => show(&mut cx, &route)?,
        ModelCommand::Promote { route, version, weight } => promote(&mut cx, &route, &version, weight)?,
        ModelCommand::Rollback { route } => roll_back(&mut cx, &route)?,
    }
    Ok(Exit::Done)
}

/// A route as lists show it.
#[derive(Serialize)]
struct RouteView {
    id: ModelName,
    /// Whether what serves was promoted; else it is as the configuration says.
    promoted: bool,
    versions: Vec<VersionView>,
}

/// A version as lists show it.
#[derive(Serialize)]
struct VersionView {
    id: String,
    /// In percent of the route's calls; 0 serves only in another's stead.
    share: f64,
    weight: u32,
    /// None: it was promoted and is not in the configuration any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    /// Whether it is another than when it was promoted, under the same id.
    changed: bool,
}

impl VersionView {
    fn remark(&self) -> &'static str {
        match (self.digest, self.changed) {
            (None, _) => "not configured any more",
            (_, true) => "another than when it was promoted",
            _ => "",
        }
    }
}

fn views(cx: &Context) -> Result<Vec<RouteView>, Failure> {
    let promotions = promotions(cx)?;
    cx.config().model.iter().map(|model| view(model, promotions.of(&model.name))).collect()
}

/// What is wrong with what was promoted, by route.
pub(super) fn remarks(cx: &Context) -> Result<Vec<(ModelName, String)>, Failure> {
    let remark = |route: &ModelName, version: &VersionView| {
        let remark = Some(version.remark()).filter(|remark| !remark.is_empty())?;
        Some((route.clone(), format!("version {} serves and is {remark}", version.id)))
    };
    let routes = views(cx)?;
    Ok(routes.iter().flat_map(|route| route.versions.iter().filter_map(|v| remark(&route.id, v))).collect())
}

/// What was promoted; nothing where there is no state yet.
fn promotions(cx: &Context) -> Result<Promotions, Failure> {
    if !cx.state_dir().exists() {
        return Ok(Promotions::default());
    }
    Ok(cx.open()?.state.promotions()?)
}

fn view(model: &Model, promoted: Option<&[Share]>) -> Result<RouteView, Failure> {
    let shares: Vec<(String, u32, Option<Digest>)> = match promoted {
        Some(shares) => shares.iter().map(|s| (s.version.clone(), s.weight, Some(s.digest))).collect(),
        None => configured_shares(model).into_iter().map(|(id, weight)| (id, weight, None)).collect(),
    };
    let all: u64 = shares.iter().map(|(_, weight, _)| u64::from(*weight)).sum();
    let percent = |weight: u32| if all == 0 { 0.0 } else { f64::from(weight) * 100.0 / all as f64 };
    let mut versions = Vec::new();
    for version in &model.version {
        let digest = up::version_facts(version)?.digest();
        let share = shares.iter().find(|(id, ..)| *id == version.id);
        let weight = share.map_or(0, |(_, weight, _)| *weight);
        versions.push(VersionView {
            id: version.id.clone(),
            share: percent(weight),
            weight,
            provider: Some(version.provider.as_str()),
            model: Some(version.model.clone()),
            base_url: Some(version.base_url.to_string()),
            digest: Some(digest),
            changed: share.and_then(|(_, _, promoted)| *promoted).is_some_and(|promoted| promoted != digest),
        });
    }
    for (id, weight, _) in &shares {
        if !model.version.iter().any(|version| version.id == *id) {
            versions.push(VersionView {
                id: id.clone(),
                share: percent(*weight),
                weight: *weight,
                provider: None,
                model: None,
                base_url: None,
                digest: None,
                changed: false,
            });
        }
    }
    Ok(RouteView { id: model.name.clone(), promoted: promoted.is_some(), versions })
}

fn configured_shares(model: &Model) -> Vec<(String, u32)> {
    let configured: Vec<(&str, u32)> = model.version.iter().map(|v| (v.id.as_str(), v.weight)).collect();
    initial_shares(&configured).into_iter().map(|(id, weight)| (id.to_owned(), weight)).collect()
}

fn list(cx: &mut Context) -> Result<(), Failure> {
    let routes = views(cx)?;
    cx.out.value(&routes);
    if routes.is_empty() {
        cx.out.line("There is no [[model]] in the configuration.");
        return Ok(());
    }
    let rows: Vec<[String; 6]> = routes
        .iter()
        .flat_map(|route| route.versions.iter().map(|version| row(route.id.as_str(), version)))
        .collect();
    cx.out.table(["MODEL", "VERSION", "SHARE", "ANSWERED BY", "DIGEST", ""], &rows);
    Ok(())
}

fn row(first: &str, version: &VersionView) -> [String; 6] {
    let digest = version.digest.map(|d| d.to_hex().chars().take(12).collect()).unwrap_or_default();
    let by = match (version.provider, &version.model) {
        (Some(provider), Some(model)) => format!("{provider} {model}"),
        _ => String::new(),
    };
    [first.to_owned(), version.id.clone(), percent(version.share), by, digest, version.remark().to_owned()]
}

fn percent(share: f64) -> String {
    if share == 0.0 { "-".into() } else { format!("{}%", (share * 10.0).round() / 10.0) }
}

fn show(cx: &mut Context, name: &ModelName) -> Result<(), Failure> {
    let model = configured(cx, name)?.clone();
    let (promotions, mut history) = if cx.state_dir().exists() {
        let state = cx.open()?.state;
        (state.promotions()?, state.promotion_history(0)?)
    } else {
        (Promotions::default(), Vec::new())
    };
    history.retain(|row| row.route == *name);
    let route = view(&model, promotions.of(name))?;
    cx.out.value(&json!({
        "id": route.id, "promoted": route.promoted, "versions": route.versions, "history": history,
        "inspection": model.inspection, "fallback": model.fallback, "retries": model.retries,
    }));
    let word = if route.promoted { "promoted" } else { "as the configuration says" };
    cx.out.line(format_args!("{name}: what serves is {word}"));
    let rows: Vec<[String; 6]> = route.versions.iter().map(|version| row("", version)).collect();
    cx.out.table(["", "VERSION", "SHARE", "ANSWERED BY", "DIGEST", ""], &rows);
    let rows: Vec<[String; 3]> = history.iter().rev().map(told_row).collect();
    if !rows.is_empty() {
        cx.out.table(["WHEN", "DONE", "SERVES SINCE"], &rows);
    }
    Ok(())
}

fn told_row(row: &PromotionRow) -> [String; 3] {
    let kind = match row.kind {
        castra_store::PromotionKind::Promote => "promoted",
        castra_store::PromotionKind::Rollback => "rolled back",
    };
    [minute(row.time), kind.to_owned(), up::told(row.shares.as_deref())]
}

fn configured<'c>(cx: &'c Context, name: &ModelName) -> Result<&'c Model, Failure> {
    let found = cx.config().model.iter().find(|model| model.name == *name);
    found.ok_or_else(|| {
        Failure::new(format!("there is no model {name} in the configuration"))
            .advise("`castra model list` shows those there are.")
    })
}

fn promote(cx: &mut Context, name: &ModelName, id: &str, percent: Option<NonZeroU32>) -> Result<(), Failure> {
    let model = configured(cx, name)?.clone();
    let version = model.version.iter().find(|version| version.id == id).ok_or_else(|| {
        let known: Vec<&str> = model.version.iter().map(|v| v.id.as_str()).collect();
        Failure::new(format!("the model {name} has no version {id}: it has {}", known.join(", ")))
            .advise("Add it to the configuration first, as [[model.version]].")
    })?;
    let share = share_of(version, 100)?;
    let others = |was: Option<&[Share]>| -> Result<Vec<Share>, Failure> {
        match was {
            Some(was) => Ok(was.to_vec()),
            None => configured_shares(&model)
                .into_iter()
                .filter_map(|(id, weight)| Some((model.version.iter().find(|v| v.id == id)?, weight)))
                .map(|(version, weight)| share_of(version, weight))
                .collect(),
        }
    };
    let configured = others(None)?;
    let state = cx.open_or_create()?.state;
    let row = state.promote(name, cx.now, |was| {
        let was = was.map_or(configured, <[Share]>::to_vec);
        shared(share, percent.map_or(100, NonZeroU32::get), &was)
    })?;
    let serves = up::told(row.shares.as_deref());
    cx.out.value(&json!({ "id": name, "version": id, "shares": row.shares, "time": row.time }));
    cx.out.line(format_args!("The model {name} is served by {serves}, from the next call on."));
    Ok(())
}

fn share_of(version: &ModelVersion, weight: u32) -> Result<Share, Failure> {
    Ok(Share { version: version.id.clone(), weight, digest: up::version_facts(version)?.digest() })
}

/// The version with this percentage, and the others with the rest in the proportions that they had.
/// Weights are in hundredths of a percent, so that small shares stay.
fn shared(mut version: Share, percent: u32, was: &[Share]) -> Vec<Share> {
    const ALL: u64 = 10_000;
    let others: Vec<&Share> = was.iter().filter(|s| s.version != version.version && s.weight > 0).collect();
    let sum: u64 = others.iter().map(|s| u64::from(s.weight)).sum();
    if percent >= 100 || sum == 0 {
        version.weight = 100;
        return vec![version];
    }
    let own = u64::from(percent) * 100;
    let rest = ALL - own;
    let scaled = |weight: u32| u32::try_from((u64::from(weight) * rest / sum).max(1)).unwrap_or(u32::MAX);
    version.weight = u32::try_from(own).unwrap_or(u32::MAX);
    let mut shares: Vec<Share> =
        others.into_iter().map(|s| Share { weight: scaled(s.weight), ..s.clone() }).collect();
    shares.push(version);
    shares
}

fn roll_back(cx: &mut Context, name: &ModelName) -> Result<(), Failure> {
    configured(cx, name)?;
    let (row, was) = cx.open()?.state.roll_back(name, cx.now)?;
    let serves = up::told(row.shares.as_deref());
    cx.out.value(&json!({ "id": name, "shares": row.shares, "was": was, "time": row.time }));
    cx.out.line(format_args!("The model {name} is served by {serves} again, from the next call on."));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(version: &str, weight: u32) -> Share {
        Share { version: version.into(), weight, digest: Digest([0; 32]) }
    }

    #[test]
    fn the_others_keep_their_proportions() {
        let was = [share("v1", 90), share("v2", 10)];
        let weights = |version: &str, percent| -> Vec<(String, u32)> {
            shared(share(version, 0), percent, &was).into_iter().map(|s| (s.version, s.weight)).collect()
        };
        let expected =
            |all: &[(&str, u32)]| all.iter().map(|(v, w)| ((*v).to_owned(), *w)).collect::<Vec<_>>();
        assert_eq!(weights("v3", 100), expected(&[("v3", 100)]));
        assert_eq!(weights("v3", 10), expected(&[("v1", 8100), ("v2", 900), ("v3", 1000)]));
        assert_eq!(weights("v2", 50), expected(&[("v1", 5000), ("v2", 5000)]));
        assert_eq!(shared(share("v1", 0), 5, &[share("v1", 1)]), [share("v1", 100)], "nobody else serves");
    }
}
