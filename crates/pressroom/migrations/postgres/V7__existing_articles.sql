-- Counts the articles without a change. Both counts come from the same snapshot, so the result is exact while others
-- write, and nobody waits.
INSERT INTO article_count_changes (change)
SELECT (SELECT count(*) FROM articles) - COALESCE((SELECT sum(change) FROM article_count_changes), 0);
