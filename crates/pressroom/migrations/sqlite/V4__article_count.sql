-- The number of articles. SQLite has one writer, so a single row suffices.
CREATE TABLE article_count (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    articles INTEGER NOT NULL
) STRICT;

INSERT INTO article_count (id, articles) SELECT 1, count(*) FROM articles;

CREATE TRIGGER articles_inserted AFTER INSERT ON articles
BEGIN
    UPDATE article_count SET articles = articles + 1;
END;

CREATE TRIGGER articles_deleted AFTER DELETE ON articles
BEGIN
    UPDATE article_count SET articles = articles - 1;
END;
