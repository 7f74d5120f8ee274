-- The number of articles, kept as changes that add up to it. Each statement that inserts or deletes articles also
-- inserts its change, in the same transaction, so a rollback removes both. Nothing is updated, so writers never wait
-- for each other. Pressroom replaces the changes by their sum at intervals.
CREATE TABLE article_count_changes (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    change BIGINT NOT NULL
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- The function runs with the privileges of its owner, because the role of the Flask application, which also writes
-- articles, has none on this table. Therefore its search path is fixed to the schema of the table.
DO $migration$
BEGIN
    EXECUTE format(
        $create$
        CREATE FUNCTION count_articles() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, %I, pg_temp
        AS $body$
        BEGIN
            CASE TG_OP
                WHEN 'INSERT' THEN
                    INSERT INTO article_count_changes (change)
                    SELECT count(*) FROM inserted HAVING count(*) > 0;
                WHEN 'DELETE' THEN
                    INSERT INTO article_count_changes (change)
                    SELECT -count(*) FROM deleted HAVING count(*) > 0;
                ELSE
                    TRUNCATE article_count_changes;
            END CASE;
            RETURN NULL;
        END
        $body$
        $create$,
        current_schema()
    );
END
$migration$;

-- Waits for writers of articles, and blocks them until the end of this transaction. The articles that already exist
-- are counted in the next one.
CREATE TRIGGER articles_inserted AFTER INSERT ON articles
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION count_articles();
CREATE TRIGGER articles_deleted AFTER DELETE ON articles
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION count_articles();
CREATE TRIGGER articles_truncated AFTER TRUNCATE ON articles
    FOR EACH STATEMENT EXECUTE FUNCTION count_articles();
