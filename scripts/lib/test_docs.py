"""Tests of scripts/lib/docs.py, which scripts/check-docs runs before it checks the pages."""

import tempfile
import unittest
from pathlib import Path

import docs


class Folder(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)

    def page(self, text, name="page.md"):
        path = self.root / name
        path.write_text(text)
        return docs.read(path)

    def assert_error(self, errors, text):
        self.assertTrue(any(text in error for error in errors), f"{text!r} is not in {errors}")


class ParsedPages(Folder):
    def links(self, text):
        page = self.page(text)
        return docs.check_links({page.path.resolve(): page})

    def test_valid_links_pass(self):
        text = "# One & two\n# Again\n# Again\n[a](#one--two) [b](page.md#again-1) [c](https://example.com/#x) `[d](e)`\n"
        self.assertEqual(self.links(text), [])

    def test_a_link_to_a_missing_file_is_reported(self):
        self.assert_error(self.links("see [it](gone.md)"), "page.md:1: gone.md: no such file")

    def test_a_missing_picture_is_reported(self):
        text = '<picture>\n<source srcset="dark.png">\n<img alt="x" src="light.png">\n</picture>'
        self.assert_error(self.links(text), "page.md:2: dark.png: no such file")
        self.assert_error(self.links(text), "page.md:3: light.png: no such file")

    def test_a_link_to_a_missing_heading_is_reported(self):
        self.assert_error(self.links("# Here\n\nsee [it](#there)"), "no such heading")

    def test_a_heading_in_a_block_does_not_count(self):
        self.assert_error(self.links("```sh\n# comment\n```\n[it](#comment)"), "no such heading")

    def blocks(self, text):
        page = self.page(text)
        return page.errors + docs.check_blocks(page, self.root)

    def test_code_that_is_never_compiled_is_reported(self):
        self.assert_error(self.blocks("```rust\nfn main() {}\n```\n"), "nothing runs or compiles this block (rust)")

    def test_an_excerpt_is_compared_with_its_file(self):
        (self.root / "a.rs").write_text("fn main() {\n    one();\n}\n")
        excerpt = "<!-- part of: a.rs -->\n```rust\n    {}();\n```\n"
        self.assertEqual(self.blocks(excerpt.format("one")), [])
        self.assert_error(self.blocks(excerpt.format("two")), "differs from a.rs")
        self.assert_error(self.blocks(excerpt.replace("a.rs", "b.rs")), "b.rs does not exist")

    def test_a_missing_test_is_reported(self):
        self.assert_error(self.blocks("<!-- run by: tests/gone -->\n```sh\nx\n```\n"), "tests/gone does not exist")

    def test_a_marker_directly_below_belongs_to_the_block_above(self):
        page = self.page("```sh\na\n```\n<!-- not run: one -->\n\n<!-- not run: two -->\n```sh\nb\n```\n")
        self.assertEqual([(block.text, block.argument) for block in page.blocks], [("a\n", "one"), ("b\n", "two")])
        self.assertEqual(page.errors, [])

    def test_a_marker_needs_a_reason(self):
        self.assert_error(self.blocks("<!-- not run: -->\n```sh\nx\n```\n"), "`not run` lacks its argument")

    def test_a_marker_needs_a_block(self):
        self.assert_error(self.blocks("<!-- not run: no Docker -->\ntext\n```sh\nx\n```\n"), "belongs to no block")

    def test_an_unclosed_block_is_reported(self):
        self.assert_error(self.blocks("```sh\ntrue\n"), "is not closed")


class ExecutedPages(Folder):
    def run_page(self, text):
        page = self.page(text)
        folder = Path(tempfile.mkdtemp(dir=self.root))
        return docs.run(page, folder, lambda text: text, {"PATH": docs.os.environ["PATH"]})

    def test_blocks_share_a_shell_and_their_output_is_compared(self):
        text = "```sh\nname=world\n```\n\n```sh\necho hello $name  # => hello world\necho '{\"at\": 1}'\n```\n\n```json\n{\"at\":1}\n```\n"
        self.assertEqual(self.run_page(text), [])

    def test_a_failing_command_is_reported_with_its_line_and_output(self):
        errors = self.run_page("```sh\ntrue\n```\n\n```sh\necho oops >&2; false\ntrue\n```\n")
        self.assert_error(errors, "page.md:5: exited with 1\noops")

    def test_a_command_that_fails_in_a_pipe_is_reported(self):
        self.assert_error(self.run_page("```sh\nfalse | true\n```\n"), "exited with 1")

    def test_an_unset_variable_is_reported(self):
        self.assert_error(self.run_page("```sh\necho $NOBODY_SET_IT\n```\n"), "unbound variable")

    def test_missing_output_is_reported(self):
        self.assert_error(self.run_page("```sh\necho 500  # => 201\n```\n"), "expected `201`")

    def test_expected_output_belongs_to_its_own_command(self):
        self.assert_error(self.run_page("```sh\necho 201\necho 500  # => 500\necho 1  # => 201\n```\n"), "expected `201`")

    def test_different_output_is_reported(self):
        text = "```sh\necho '{{\"id\": 1, \"at\": \"2026-01-01T00:00:00Z\"}}'\n```\n\n```json\n{}\n```\n"
        shown = '{"id":1,"at":"1999-12-31T23:59:59.5Z"}'
        self.assertEqual(self.run_page(text.format(shown)), [])
        self.assert_error(self.run_page(text.format(shown.replace("1,", "2,"))), "but the output was")

    def test_a_background_command_that_never_becomes_ready_is_reported(self):
        self.assert_error(self.run_page("<!-- background: false -->\n```sh\necho it broke\nfalse\n```\n"), "it broke")

    def test_a_background_command_runs_until_it_is_stopped(self):
        text = (
            "<!-- background: test -e up -->\n```sh\ntouch up\nsleep 600\n```\n\n"
            "```sh\npid=$running\nkill -0 $pid\n```\n\n<!-- stop -->\n```sh\n! kill -0 $pid 2>&1  # => No such process\n```\n"
        )
        self.assertEqual(self.run_page(text), [])

    def test_blocks_marked_as_not_run_are_skipped(self):
        self.assertEqual(self.run_page("<!-- not run: it fails -->\n```sh\nfalse\n```\n"), [])


if __name__ == "__main__":
    unittest.main()
