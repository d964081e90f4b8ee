"""What a hospital trains: the description of a task, and the tasks that come with fedqueue."""
