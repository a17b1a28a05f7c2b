-- What is spent of budgets. One row per account: its newest window only.
CREATE TABLE budget_accounts (
    budget TEXT NOT NULL,
    per TEXT NOT NULL,
    agent TEXT NOT NULL DEFAULT '', -- empty where all share one account
    start INTEGER NOT NULL, -- of the window, in microseconds since 1970
    spent_requests INTEGER NOT NULL,
    spent_tokens INTEGER NOT NULL,
    spent_money INTEGER NOT NULL, -- millionths of the currency, here and below
    held_requests INTEGER NOT NULL,
    held_tokens INTEGER NOT NULL,
    held_money INTEGER NOT NULL,
    leased_requests INTEGER NOT NULL, -- counts as spent after a crash: never less than what was really spent
    leased_tokens INTEGER NOT NULL,
    leased_money INTEGER NOT NULL,
    PRIMARY KEY (budget, per, agent)
) STRICT, WITHOUT ROWID;
