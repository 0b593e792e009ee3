import { useParams } from "react-router";

import { UserDetail } from "./UserDetail";
import { UserList } from "./UserList";

export default function Users() {
  const { id } = useParams();
  return id === undefined ? <UserList /> : <UserDetail key={id} id={id} />;
}
