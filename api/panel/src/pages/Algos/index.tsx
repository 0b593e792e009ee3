import { useParams } from "react-router";

import { AlgoDetail } from "./AlgoDetail";
import { AlgoList } from "./AlgoList";

export default function Algos() {
  const { id } = useParams();
  return id === undefined ? <AlgoList /> : <AlgoDetail key={id} id={id} />;
}
