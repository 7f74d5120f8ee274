-- The tables of the reference implementation, named and typed as its ORM creates them. Everything
-- is IF NOT EXISTS: a database that it made, with all its rows, is adopted as it stands, and it
-- goes on working beside us. Never change these tables in a way that would break it.

CREATE TABLE IF NOT EXISTS users (
    id SERIAL NOT NULL,
    email VARCHAR(255) NOT NULL,
    password_hash VARCHAR(255) NOT NULL,
    name VARCHAR(255) NOT NULL,
    bio VARCHAR(1000) NOT NULL,
    image VARCHAR(500) NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id)
);

CREATE UNIQUE INDEX IF NOT EXISTS ix_users_email ON users (email);

CREATE TABLE IF NOT EXISTS articles (
    id SERIAL NOT NULL,
    slug VARCHAR(255) NOT NULL,
    title VARCHAR(255) NOT NULL,
    description TEXT NOT NULL,
    body TEXT NOT NULL,
    author_id INTEGER NOT NULL,
    favorites_count INTEGER NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    CONSTRAINT articles_pkey PRIMARY KEY (id),
    CONSTRAINT articles_author_id_fkey FOREIGN KEY (author_id) REFERENCES users (id)
);

CREATE UNIQUE INDEX IF NOT EXISTS ix_articles_slug ON articles (slug);

CREATE TABLE IF NOT EXISTS favorites (
    id SERIAL NOT NULL,
    user_id INTEGER NOT NULL,
    article_id INTEGER NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    CONSTRAINT favorites_pkey PRIMARY KEY (id),
    CONSTRAINT uq_user_article_favorite UNIQUE (user_id, article_id),
    CONSTRAINT favorites_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT favorites_article_id_fkey FOREIGN KEY (article_id) REFERENCES articles (id)
);
