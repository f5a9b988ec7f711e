from mslt_tf import errors


def test_the_first_line_is_what_an_error_says():
  assert errors.first_line(ValueError("one\ntwo")) == "one"
  assert errors.first_line(OSError(28, "No space left")) == (
    "[Errno 28] No space left"
  )
  assert errors.first_line(OSError()) == "OSError"
