"""Runs the tour of docs/api.md with the client that openapi-python-client generates from docs/openapi.json.

    PYTHONPATH=<folder of the client> python tour.py <API>

Each response must have the type that the document declares for its status.
"""

import sys

from pressroom_client import AuthenticatedClient, Client, models
from pressroom_client.api.accounts import login, logout, profile, register, update_profile
from pressroom_client.api.articles import (
    create_article,
    delete_article,
    favorite_article,
    get_article,
    list_articles,
    unfavorite_article,
    update_article,
)
from pressroom_client.api.health import health, live, ready


def parsed(response, status, model):
    """Returns the parsed body of a response."""
    assert response.status_code == status, response
    assert isinstance(response.parsed, model), response
    return response.parsed


api = sys.argv[1]
anyone = Client(base_url=api, raise_on_unexpected_status=True)

account = models.Registration(email="alice@example.com", name="Alice", password="password123")
registered = parsed(register.sync_detailed(client=anyone, body=account), 201, models.SignedIn)
assert registered.token.token_type == "Bearer"
assert registered.user.created_at.utcoffset().total_seconds() == 0
taken = parsed(register.sync_detailed(client=anyone, body=account), 409, models.ErrorBody)
assert taken.error.code == "email_taken"
wrong = models.Registration(email="nonsense", name="", password="short")
invalid = parsed(register.sync_detailed(client=anyone, body=wrong), 400, models.ErrorBody)
assert set(invalid.error.fields.additional_properties) == {"email", "name", "password"}

credentials = models.Login(email=account.email, password=account.password)
signed_in = parsed(login.sync_detailed(client=anyone, body=credentials), 200, models.SignedIn)
assert signed_in.user == registered.user
alice = AuthenticatedClient(base_url=api, token=signed_in.token.access_token, raise_on_unexpected_status=True)

draft = models.NewArticle(title="My Article", description="A brief description", body="Article content here")
created = create_article.sync_detailed(client=alice, body=draft, idempotency_key="tour")
article = parsed(created, 201, models.Article)
assert created.headers["location"] == f"/api/articles/{article.slug}"
assert (article.title, article.description, article.body) == (draft.title, draft.description, draft.body)
repeated = create_article.sync_detailed(client=alice, body=draft, idempotency_key="tour")
assert parsed(repeated, 201, models.Article) == article
assert repeated.headers["idempotency-replayed"] == "true"
parsed(create_article.sync_detailed(client=anyone, body=draft), 401, models.ErrorBody)

page = parsed(list_articles.sync_detailed(client=anyone, search="my", per_page=10), 200, models.ArticleList)
assert (page.articles, page.total, page.page, page.per_page) == ([article], 1, 1, 10)
assert page.next_cursor is None
other = models.NewArticle(title="Other", body="x")
parsed(create_article.sync_detailed(client=alice, body=other), 201, models.Article)
oldest = {"per_page": 1, "author": article.author.id, "sort": "oldest"}
first = parsed(list_articles.sync_detailed(client=anyone, **oldest), 200, models.ArticleList)
assert first.articles == [article]
second = list_articles.sync_detailed(client=anyone, **oldest, cursor=first.next_cursor)
assert parsed(second, 200, models.ArticleList).articles[0].title == "Other"
parsed(list_articles.sync_detailed(client=anyone, cursor="nonsense"), 400, models.ErrorBody)

shown = get_article.sync_detailed(article.slug, client=anyone)
assert parsed(shown, 200, models.Article) == article
tag = shown.headers["etag"]
assert get_article.sync_detailed(article.slug, client=anyone, if_none_match=tag).status_code == 304

favorite = parsed(favorite_article.sync_detailed(article.slug, client=alice), 200, models.Article)
assert (favorite.favorited, favorite.favorites_count) == (True, 1)
favorites = parsed(list_articles.sync_detailed(client=alice, favorited=True), 200, models.ArticleList)
assert favorites.articles == [favorite]
unfavorite = parsed(unfavorite_article.sync_detailed(article.slug, client=alice), 200, models.Article)
assert (unfavorite.favorited, unfavorite.favorites_count) == (False, 0)

change = models.ArticleUpdate(title="My Better Article")
updated = parsed(
    update_article.sync_detailed(article.slug, client=alice, body=change, if_match=tag), 200, models.Article
)
assert (updated.title, updated.slug, updated.body) == ("My Better Article", article.slug, article.body)
assert updated.updated_at > article.updated_at
stale = update_article.sync_detailed(article.slug, client=alice, body=change, if_match=tag)
assert parsed(stale, 412, models.ErrorBody).error.code == "precondition_failed"

assert delete_article.sync_detailed(article.slug, client=alice).status_code == 204
missing = parsed(get_article.sync_detailed(article.slug, client=anyone), 404, models.ErrorBody)
assert (missing.error.code, missing.error.status_code) == ("article_not_found", 404)
assert len(missing.error.trace_id) == 32

renamed = update_profile.sync_detailed(client=alice, body=models.Profile(name="Alice B.", bio="Writes."))
assert parsed(renamed, 200, models.User).name == "Alice B."
assert parsed(profile.sync_detailed(client=alice), 200, models.User).bio == "Writes."
parsed(health.sync_detailed(client=anyone), 200, models.Health)
parsed(live.sync_detailed(client=anyone), 200, models.Probe)
parsed(ready.sync_detailed(client=anyone), 200, models.Probe)
parsed(logout.sync_detailed(client=alice), 200, models.Message)
parsed(profile.sync_detailed(client=alice), 401, models.ErrorBody)
