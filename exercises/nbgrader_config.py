# What an instructor's course folder needs (INSTRUCTORS.md).
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "minillava"
c.ExecutePreprocessor.timeout = 300
