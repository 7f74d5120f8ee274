"""A small articles service on Flask, SQLAlchemy and Celery, for tests that run Pressroom alongside it and replace it.

It has the tables, tokens, password hashes, task and responses of the systems that Pressroom replaces. It is minimal,
because the tests depend on the behaviour of Flask, werkzeug, PyJWT, SQLAlchemy and Celery.
"""

import os
import re
import time
from datetime import UTC, datetime, timedelta
from functools import wraps

import jwt
from flask import Flask, g, jsonify, request
from opentelemetry import context, propagate
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import HTTPException
from werkzeug.security import check_password_hash, generate_password_hash

from models import Article, Base, Favorite, User, engine, sessions
from tasks import send_article_notification, store

SECRET_KEY = os.environ["SECRET_KEY"]

app = Flask(__name__)

# Small applications create their tables at start; larger ones use Alembic.
Base.metadata.create_all(engine)


class Rejected(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status
        self.message = message


@app.errorhandler(Rejected)
def reject(rejected):
    return jsonify(error=rejected.message), rejected.status


@app.errorhandler(Exception)
def fail(error):
    if isinstance(error, HTTPException):
        return error
    app.logger.exception("unexpected")
    return jsonify(error="Internal server error", status=500), 500


@app.before_request
def begin():
    # Tasks sent by this request continue the caller's trace.
    g.token = context.attach(propagate.extract(request.headers))
    g.session = sessions()


@app.teardown_request
def end(_error):
    g.session.close()
    context.detach(g.token)


# --- users and tokens


def issue(user):
    issued = datetime.now(UTC)
    claims = {"user_id": user.id, "email": user.email, "exp": issued + timedelta(hours=24), "iat": issued}
    return {"access_token": jwt.encode(claims, SECRET_KEY, algorithm="HS256"), "token_type": "Bearer"}


def caller():
    """Returns the user of the request's token, or None without a token."""
    header = request.headers.get("Authorization", "")
    if not header.startswith("Bearer "):
        return None
    try:
        claims = jwt.decode(header.removeprefix("Bearer "), SECRET_KEY, algorithms=["HS256"])
    except jwt.InvalidTokenError as error:
        raise Rejected(401, "Invalid or expired token") from error
    if "user_id" not in claims:
        raise Rejected(401, "Invalid token payload")
    user = g.session.get(User, claims["user_id"])
    if user is None:
        raise Rejected(401, "User not found")
    return user


def signed_in(view):
    @wraps(view)
    def with_user(*arguments, **named):
        g.user = caller()
        if g.user is None:
            raise Rejected(401, "Missing or invalid authorization header")
        return view(*arguments, **named)

    return with_user


def show_user(user):
    shown = {name: getattr(user, name) for name in ("id", "email", "name", "bio", "image")}
    return shown | {"created_at": user.created_at.isoformat()}


@app.post("/api/register")
def register():
    given = request.get_json()
    user = User(
        email=given["email"],
        password_hash=generate_password_hash(given["password"]),
        name=given["name"],
    )
    g.session.add(user)
    try:
        g.session.commit()
    except IntegrityError as error:
        raise Rejected(409, "Email already registered") from error
    return {"user": show_user(user), "token": issue(user)}, 201


@app.post("/api/login")
def login():
    given = request.get_json()
    user = g.session.scalar(select(User).where(User.email == given["email"]))
    if user is None or not check_password_hash(user.password_hash, given["password"]):
        raise Rejected(401, "Invalid credentials")
    return {"user": show_user(user), "token": issue(user)}


@app.get("/api/user")
@signed_in
def profile():
    return show_user(g.user)


@app.post("/api/logout")
@signed_in
def logout():
    return {"message": "Logged out successfully"}


# --- articles


def show_article(article, user):
    favorite = user and g.session.scalar(
        select(Favorite.id).where(Favorite.user_id == user.id, Favorite.article_id == article.id)
    )
    shown = {name: getattr(article, name) for name in ("slug", "title", "description", "body", "favorites_count")}
    return shown | {
        "author": show_user(article.author),
        "favorited": favorite is not None,
        "created_at": article.created_at.isoformat(),
        "updated_at": article.updated_at.isoformat(),
    }


def find(slug):
    article = g.session.scalar(select(Article).where(Article.slug == slug))
    if article is None:
        raise Rejected(404, "Article not found")
    return article


def own(slug, verb):
    article = find(slug)
    if article.author_id != g.user.id:
        raise Rejected(403, f"You can only {verb} your own articles")
    return article


@app.get("/api/articles/")
def list_articles():
    page, per_page = request.args.get("page", 1, type=int), request.args.get("per_page", 20, type=int)
    chosen = select(Article)
    if search := request.args.get("search"):
        chosen = chosen.where(Article.title.ilike(f"%{search}%"))
    total = g.session.scalar(select(func.count()).select_from(chosen.subquery()))
    newest = chosen.order_by(Article.created_at.desc()).limit(per_page).offset((page - 1) * per_page)
    user = caller()
    articles = [show_article(article, user) for article in g.session.scalars(newest)]
    return {"articles": articles, "total": total, "page": page, "per_page": per_page}


@app.post("/api/articles/")
@signed_in
def create_article():
    given = request.get_json()
    words = re.sub(r"[^a-z0-9]+", "-", given["title"].lower()).strip("-")
    article = Article(
        slug=f"{words}-{int(time.time() * 1000)}",
        title=given["title"],
        description=given.get("description", ""),
        body=given["body"],
        author=g.user,
    )
    g.session.add(article)
    g.session.commit()
    send_article_notification.delay(article.id, "created")
    return show_article(article, g.user), 201


@app.get("/api/articles/<slug>")
def get_article(slug):
    return show_article(find(slug), caller())


@app.put("/api/articles/<slug>")
@signed_in
def update_article(slug):
    article = own(slug, "update")
    for name in ("title", "description", "body"):
        setattr(article, name, request.get_json().get(name, getattr(article, name)))
    g.session.commit()
    return show_article(article, g.user)


@app.delete("/api/articles/<slug>")
@signed_in
def delete_article(slug):
    g.session.delete(own(slug, "delete"))
    g.session.commit()
    return "", 204


@app.route("/api/articles/<slug>/favorite", methods=["POST", "DELETE"])
@signed_in
def favorite(slug):
    article = find(slug)
    known = g.session.scalar(
        select(Favorite).where(Favorite.user_id == g.user.id, Favorite.article_id == article.id)
    )
    if request.method == "POST" and known is None:
        g.session.add(Favorite(user_id=g.user.id, article_id=article.id))
        article.favorites_count = Article.favorites_count + 1
    elif request.method == "DELETE" and known is not None:
        g.session.delete(known)
        article.favorites_count = Article.favorites_count - 1
    g.session.commit()
    g.session.refresh(article)
    return show_article(article, g.user)


@app.get("/api/health")
def health():
    g.session.execute(text("SELECT 1"))
    store.ping()
    return {"status": "healthy", "components": {"database": "healthy", "redis": "healthy"}}
