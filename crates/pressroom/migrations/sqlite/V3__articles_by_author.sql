-- The list of one author's articles, newest or oldest first. It also serves the queries of the index that it replaces.
CREATE INDEX ix_articles_author_newest ON articles (author_id, created_at DESC, id DESC);
DROP INDEX ix_articles_author_id;
